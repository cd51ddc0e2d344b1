use super::*;

fn halving(text: &str) -> Halving {
    serde_yaml::from_str(text).unwrap()
}

/// Members at a position, each with one value that holds from its first epoch on.
fn at(position: u64, values: &[f64]) -> Vec<MemberProgress> {
    let of = |value: &f64| MemberProgress {
        position,
        values: BTreeMap::from([(1, *value)]),
        ..MemberProgress::default()
    };
    values.iter().map(of).collect()
}

fn rungs(courses: &[Course]) -> Vec<(usize, bool)> {
    courses.iter().map(|course| (course.rung, course.is_final)).collect()
}

#[test]
fn the_better_part_goes_on_once_all_have_come() {
    let rule = halving("{rungs: [2, 4, 8], keep: 1/3, monitor: loss}");
    let mut members = at(2, &[5.0, 1.0, 4.0, 3.0, 2.0, 6.0]);
    members[3].position = 1;
    assert_eq!(rungs(&rule.courses(&members, &mut [])), [(0, false); 6], "one is on its way");
    members[3].position = 2;
    let courses = rule.courses(&members, &mut []);
    let out = (0, true);
    assert_eq!(rungs(&courses), [out, (1, false), out, out, (1, false), out]);
    let place = Place { epoch: 2, place: 6, of: 6, value: Some(6.0) };
    assert_eq!(courses[5].place, Some(place));
    (members[1].position, members[4].position) = (4, 4);
    let courses = rule.courses(&members, &mut []);
    assert_eq!(rungs(&courses), [out, (2, true), out, out, (1, true), out], "one at least");
    let higher = halving("{rungs: [2, 4], keep: 0.5, monitor: acc, mode: max}");
    let courses = higher.courses(&at(2, &[1.0, 3.0, 3.0, 2.0, 0.0]), &mut []);
    assert_eq!(rungs(&courses), [out, (1, true), (1, true), out, out], "half of five is two");
}

#[test]
fn of_equals_the_first_goes_on_and_what_is_no_number_comes_last() {
    let rule = halving("{rungs: [1, 2], keep: 1/2, monitor: loss}");
    let courses = rule.courses(&at(1, &[7.0, 7.0]), &mut []);
    assert_eq!(rungs(&courses), [(1, true), (0, true)]);
    let courses = rule.courses(&at(1, &[f64::NAN, 7.0]), &mut []);
    assert_eq!(rungs(&courses), [(0, true), (1, true)]);
    let courses = rule.courses(&at(1, &[f64::INFINITY, f64::NAN]), &mut []);
    assert_eq!(rungs(&courses), [(0, true), (0, true)], "nobody goes on that has no value");
}

#[test]
fn one_that_failed_is_waited_for_by_nobody() {
    let rule = halving("{rungs: [2, 4], keep: 1/2, monitor: loss}");
    let mut members = at(2, &[1.0, 2.0, 3.0, 4.0]);
    (members[0].position, members[0].has_failed) = (1, true);
    let courses = rule.courses(&members, &mut []);
    let (out, on) = ((0, true), (1, true));
    assert_eq!(rungs(&courses), [out, on, on, out], "two of four, without the failed one");
    assert_eq!(courses[0].place.map(|place| place.place), Some(4));
    members.iter_mut().for_each(|member| member.has_failed = true);
    assert_eq!(rungs(&rule.courses(&members, &mut [])), [out; 4]);
}

#[test]
fn one_that_ended_early_is_compared_by_its_end() {
    let rule = halving("{rungs: [2, 4], keep: 1/2, monitor: loss}");
    let mut members = at(2, &[1.0, 2.0]);
    members[0].has_ended = true;
    members[0].position = 0;
    assert_eq!(rungs(&rule.courses(&members, &mut [])), [(1, true), (0, true)]);
}

#[test]
fn asynchronously_each_goes_on_among_those_that_came_so_far() {
    let rule = halving("{rungs: [1, 3], keep: 1/2, monitor: loss, asynchronous: true}");
    let mut members = at(0, &[4.0, 3.0, 2.0, 1.0]);
    let mut promoted = [0; 4];
    members[0].position = 1;
    assert_eq!(rungs(&rule.courses(&members, &mut promoted))[0], (0, false), "half of one is none");
    members[1].position = 1;
    let courses = rule.courses(&members, &mut promoted);
    assert_eq!(courses[1].rung, 1, "the better one of two");
    // Two better ones come: what was let go on goes on.
    (members[2].position, members[3].position) = (1, 1);
    let courses = rule.courses(&members, &mut promoted);
    assert_eq!(promoted, [0, 1, 1, 1]);
    assert!(!courses[0].is_final, "others are on their way");
    members.iter_mut().skip(1).for_each(|member| member.position = 3);
    assert_eq!(
        rungs(&rule.courses(&members, &mut promoted)),
        [(0, true), (1, true), (1, true), (1, true)]
    );
}

#[test]
fn a_decision_that_was_noted_stands_as_long_as_its_rung_is_there() {
    let rule = halving("{rungs: [2, 4, 8], keep: 1/3, monitor: loss}");
    let member = |position| MemberProgress { position, ..MemberProgress::default() };
    assert_eq!(rule.promoted(None, &member(2)), 0);
    assert_eq!(rule.promoted(Some(2), &member(2)), 0);
    assert_eq!(rule.promoted(Some(4), &member(2)), 1);
    assert_eq!(rule.promoted(Some(4), &member(0)), 0, "trained anew, with other settings");
    assert_eq!(rule.promoted(Some(7), &member(4)), 1, "its rungs were others");
    assert_eq!(rule.promoted(Some(100), &member(4)), 2);
}

#[test]
fn what_is_no_halving_is_refused_with_its_key() {
    let wrong = |text: &str| halving(text).check().unwrap_err().path();
    assert_eq!(wrong("{rungs: [5], keep: 1/3, monitor: loss}"), ["halving", "rungs"]);
    assert_eq!(wrong("{rungs: [5, 5], keep: 1/3, monitor: loss}"), ["halving", "rungs"]);
    assert_eq!(wrong("{rungs: [0, 5], keep: 1/3, monitor: loss}"), ["halving", "rungs"]);
    let none = "{rungs: [1, 5], keep: 1/3, monitor: loss, max_parallel: 0}";
    assert_eq!(wrong(none), ["halving", "max_parallel"]);
    for keep in ["0", "1", "1.5", "3/2", "0/3", "a third", "-1/3", "1/0"] {
        let text = format!("{{rungs: [1, 5], keep: {keep}, monitor: loss}}");
        assert!(serde_yaml::from_str::<Halving>(&text).is_err(), "{keep}");
    }
}

#[test]
fn a_share_is_exact() {
    let of = |keep: &str, number| serde_yaml::from_str::<Share>(keep).unwrap().of(number);
    assert_eq!([of("1/3", 9), of("1/3", 8), of("1/3", 2)], [3, 2, 1]);
    assert_eq!([of("0.1", 10), of("0.7", 10), of("0.29", 100)], [1, 7, 29]);
    let halving = halving("{rungs: [1, 3, 9, 27], keep: 1/3, monitor: loss}");
    assert_eq!(halving.sizes(27), [27, 9, 3, 1]);
    assert_eq!(halving.sizes(5), [5, 1, 1, 1]);
    assert_eq!(halving.epochs(27), 27 + 9 * 2 + 3 * 6 + 18);
    assert_eq!(serde_yaml::to_string(&halving.keep).unwrap().trim(), "1/3");
}
