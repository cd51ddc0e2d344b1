//! Names that the header of an entry has no room for. They stand in an entry before it, as pax has
//! them (POSIX.1-2024, pax Interchange Format): lines `LENGTH KEY=VALUE`.

use std::io::{self, Read, Write};

use tar::{Builder, Entry, EntryType, Header, PaxExtensions};

/// Keys of a name and of what a link leads to.
const PATH: &str = "path";
const LINK: &str = "linkpath";
/// Bytes of an entry that says names. Systems take such of up to 4 KiB.
const LONGEST: u64 = 64 << 10;
/// What the header of a file is called whose name stands before it. Its name in the header is read
/// by programs alone that know no pax.
const ELSEWHERE: &str = "long_name";

/// Gives a header its name and where it leads, and writes before it what it has no room for. Those
/// that have room are as they always were.
pub(super) fn name<W: Write>(
    tar: &mut Builder<W>,
    header: &mut Header,
    path: &str,
    link: Option<&str>,
) -> io::Result<()> {
    let (mut before, empty) = (Vec::new(), header.clone());
    if header.set_path(path).is_err() {
        before.push((PATH, path.as_bytes()));
        *header = empty;
        header.set_path(ELSEWHERE)?;
    }
    if let Some(link) = link {
        let named = header.clone();
        if header.set_link_name(link).is_err() {
            before.push((LINK, link.as_bytes()));
            *header = named;
            header.set_link_name(ELSEWHERE)?;
        }
    }
    if before.is_empty() { Ok(()) } else { tar.append_pax_extensions(before) }
}

/// The name of an entry and where it leads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Names {
    /// The names that an entry has for the one after it, if that is what it is for.
    ///
    /// # Errors
    /// One that is longer than any name, and one that says anything else of a file.
    pub fn before(entry: &mut Entry<impl Read>) -> Result<Option<Self>, String> {
        if entry.header().entry_type() != EntryType::XHeader {
            return Ok(None);
        }
        if entry.size() > LONGEST {
            return Err(format!("a name takes {} bytes, which is refused", entry.size()));
        }
        let mut text = Vec::new();
        entry.read_to_end(&mut text).map_err(|e| e.to_string())?;
        let mut names = Self::default();
        for line in PaxExtensions::new(&text) {
            let line = line.map_err(|e| e.to_string())?;
            let value = Some(line.value_bytes().to_vec());
            match line.key() {
                Ok(PATH) if names.path.is_none() => names.path = value,
                Ok(LINK) if names.link.is_none() => names.link = value,
                _ => {
                    let key = String::from_utf8_lossy(line.key_bytes()).into_owned();
                    return Err(format!("it says {key:?} of a file, or twice its name"));
                }
            }
        }
        Ok(Some(names))
    }

    /// What is not said before an entry is said in its header.
    pub fn or_of(self, entry: &Entry<impl Read>) -> Self {
        let path = self.path.or_else(|| Some(entry.path_bytes().into_owned()));
        let link = self.link.or_else(|| entry.link_name_bytes().map(|link| link.into_owned()));
        Self { path, link }
    }

    pub fn is(&self, path: &str) -> bool {
        self.path.as_deref() == Some(path.as_bytes())
    }

    pub fn leads_to(&self, path: &str) -> bool {
        self.link.as_deref() == Some(path.as_bytes())
    }

    /// The name, for a message.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(self.path.as_deref().unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use tar::Archive;

    use super::*;

    /// The names of an archive's entries, as they are read.
    fn read(archive: &[u8]) -> Result<Vec<Names>, String> {
        let mut tar = Archive::new(archive);
        let mut entries = tar.entries().unwrap().raw(true);
        let mut found = Vec::new();
        while let Some(entry) = entries.next() {
            let mut entry = entry.unwrap();
            let long = Names::before(&mut entry)?;
            if long.is_some() {
                entry = entries.next().unwrap().unwrap();
            }
            found.push(long.unwrap_or_default().or_of(&entry));
        }
        Ok(found)
    }

    fn written(names: &[(String, Option<String>)]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (path, link) in names {
            let mut header = Header::new_ustar();
            name(&mut tar, &mut header, path, link.as_deref()).unwrap();
            header.set_size(0);
            header.set_cksum();
            tar.append(&header, io::empty()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn names_of_any_length_come_back_and_are_written_alike() {
        let lengths = (1..300).chain([500, 990, 1000, 4000]);
        let path = |n: usize| format!("run_001/{}", "ä/".repeat(n).get(..3 * n - 1).unwrap());
        let flat = |n: usize| format!("run_001/{}", "x".repeat(n));
        let names: Vec<(String, Option<String>)> = lengths
            .flat_map(|n| [(path(n), None), (flat(n), None), (flat(1), Some(path(n)))])
            .collect();
        let archive = written(&names);
        assert!(written(&names) == archive, "the same names are the same bytes");
        let found = read(&archive).unwrap();
        assert_eq!(found.len(), names.len());
        for ((path, link), found) in names.iter().zip(found) {
            assert!(found.is(path), "{path}: {found:?}");
            assert!(link.as_ref().is_none_or(|link| found.leads_to(link)), "{link:?}: {found:?}");
        }
        // One that fits is as it was before there were others.
        let mut header = Header::new_ustar();
        header.set_path(flat(100)).unwrap();
        header.set_size(0);
        header.set_cksum();
        assert_eq!(written(&[(flat(100), None)])[..512], header.as_bytes()[..]);
    }

    #[test]
    fn what_says_more_than_a_name_is_refused() {
        let archive = |lines: &[u8]| {
            let mut tar = Builder::new(Vec::new());
            for (kind, content) in [(EntryType::XHeader, lines), (EntryType::Regular, &[][..])] {
                let mut header = Header::new_ustar();
                header.set_entry_type(kind);
                header.set_size(content.len() as u64);
                header.set_cksum();
                tar.append(&header, content).unwrap();
            }
            tar.into_inner().unwrap()
        };
        assert!(read(&archive(b"9 path=a\n")).unwrap()[0].is("a"));
        let long = [b"70000 path=".to_vec(), vec![b'a'; 70_000]].concat();
        for (lines, expected) in [
            (&b"9 size=9\n"[..], "it says \"size\" of a file"),
            (b"9 path=a\n9 path=b\n", "twice its name"),
            (b"99999999999999999999 path=a\n", "malformed pax"),
            (b"9 path a\n", "malformed pax"),
            (b"nonsense", "malformed pax"),
            (&long, "a name takes 70011 bytes"),
        ] {
            let message = read(&archive(lines)).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
