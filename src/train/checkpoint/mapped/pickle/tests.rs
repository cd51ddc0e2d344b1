use super::*;

/// `{'epoch': 3, 'state_dict': OrderedDict(b=<tensor>, a=<tensor>), 'steps': [7, -1, 300]}` as
/// protocol 2 has it, with what a tensor is made by.
fn sample() -> Vec<u8> {
    let mut bytes = b"\x80\x02}q\x00(X\x05\x00\x00\x00epochq\x01K\x03".to_vec();
    bytes.extend(b"X\x0a\x00\x00\x00state_dictq\x02ccollections\nOrderedDict\nq\x03)Rq\x04(");
    for name in [b'b', b'a'] {
        bytes.extend([b'X', 1, 0, 0, 0, name]);
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storaget");
        bytes.extend(b"QK\x00K\x02\x85K\x01\x85\x89h\x03)RtR");
    }
    bytes.extend(b"u}X\x09\x00\x00\x00_metadatah\x04sb");
    bytes.extend(b"X\x05\x00\x00\x00steps](K\x07J\xff\xff\xff\xffM\x2c\x01eu.");
    bytes
}

#[test]
fn keys_keep_their_order_and_nothing_is_called() {
    let pickle = Pickle::parse(&sample()).unwrap();
    let root = pickle.root();
    assert_eq!(root.get("epoch").and_then(Node::int), Some(3));
    let state = root.get("state_dict").unwrap();
    assert_eq!(state.entries().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "a"]);
    assert!(matches!(state.get("a").unwrap().value(), Value::Other));
    let steps = root.get("steps").unwrap().items().map(Node::int);
    assert_eq!(steps.collect::<Vec<_>>(), [Some(7), Some(-1), Some(300)]);
    assert!(root.at(&["state_dict", "a", "x"]).is_none());
}

#[test]
fn wide_numbers_and_newer_protocols_are_read() {
    let bytes =
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94\x8a\x01\xff\x8c\x01b\
        \x8a\x02\x00\x01\x8c\x01c\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01\x8c\x01dh\x00u.";
    let pickle = Pickle::parse(bytes).unwrap();
    let number = |key: &str| pickle.root().get(key).and_then(Node::int);
    assert_eq!((number("a"), number("b"), number("c")), (Some(-1), Some(256), None));
    // A dictionary that holds itself is no trouble.
    assert_eq!(pickle.root().at(&["d", "d", "a"]).and_then(Node::int), Some(-1));
}

#[test]
fn no_damage_to_a_pickle_is_more_than_an_error() {
    use rand::{RngExt, SeedableRng};
    let mut rng = pipe_core::rng::ChaCha8Rng::seed_from_u64(5);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = sample();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len().max(1));
            match rng.random_range(0..3) {
                _ if bytes.len() < 2 => {}
                0 => bytes[at] = rng.random_range(0..=255),
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        match Pickle::parse(&bytes) {
            Ok(pickle) => {
                read += 1;
                let items = |(_, node): (String, Node)| node.items().count();
                pickle.root().entries().map(items).for_each(|count| assert!(count < 1000));
            }
            Err(message) => {
                refused += 1;
                assert!(message.starts_with("its pickle cannot be read from byte"));
            }
        }
    }
    assert!(read > 100 && refused > 100, "{read} {refused}");
}

#[test]
fn what_claims_to_be_vast_is_refused_at_once() {
    for wrong in [
        &b"\x80\x02X\xff\xff\xff\xff."[..],
        b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"(u.",
        b"t.",
        b"\x87.",
        b"K\x01(\x85.",
        b"h\x00.",
        b"cos\nsystem",
        b"I5\n.",
        b"",
    ] {
        assert!(Pickle::parse(wrong).is_err(), "{wrong:?}");
    }
    // As many values as there are bytes, and no more.
    let many = [vec![b'N'; MAX_VALUES + 2], vec![b'.']].concat();
    assert!(Pickle::parse(&many).is_err());
}
