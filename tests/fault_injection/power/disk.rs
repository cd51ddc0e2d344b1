//! A disk of which it is known what lasts, and every state that POSIX lets a power cut leave it in.
//!
//! Content of a file lasts from the sync of the file on, a name in a folder from the sync of the
//! folder on. Every other change is there afterwards or not, each for itself and in any order: file
//! systems with a journal promise more, and nothing here relies on it. Of an unsynced write, a part
//! up to the boundary of a sector may be there, or the length and zeros for what is new. Moving or
//! replacing a name within a folder is one change; a move from one folder to another is one in
//! each. When a power cut keeps a change of a folder and loses an earlier one, the later one has
//! its effect alone.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::recording::{About, Change};

/// Number of a change in the log.
type At = usize;
/// Number of a node of the disk.
type Id = usize;

const ROOT: Id = 0;

#[derive(Clone)]
pub struct Disk {
    /// Shared with the disk at other moments, as far as they are the same.
    nodes: Vec<Arc<Node>>,
}

#[derive(Clone)]
enum Node {
    File(File),
    Folder(Folder),
    Symlink(String),
}

#[derive(Clone)]
struct File {
    inode: u64,
    lasting: Content,
    now: Content,
    /// What was done since the last sync.
    unsynced: Vec<(At, Edit)>,
}

#[derive(Clone)]
struct Content {
    bytes: Arc<[u8]>,
    digest: u64,
    modified: u64,
}

#[derive(Clone)]
enum Edit {
    /// Bytes from this place on. The file grows if need be.
    Write {
        at: usize,
        bytes: Arc<[u8]>,
        modified: u64,
    },
    Cut {
        length: usize,
        modified: u64,
    },
}

#[derive(Clone, Default)]
struct Folder {
    lasting: BTreeMap<String, Id>,
    now: BTreeMap<String, Id>,
    unsynced: Vec<(At, Names)>,
}

/// Names that one change gives, or takes away.
type Names = Vec<(String, Option<Id>)>;

/// What a power cut does.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub names: Kept,
    pub data: Data,
}

/// Which of the unsynced changes of names are there afterwards.
#[derive(Debug, Clone, Copy)]
pub enum Kept {
    Nothing,
    All,
    Only(At),
    AllBut(At),
    Until(At),
    Random(u64),
}

/// What is there afterwards of the unsynced content of files.
#[derive(Debug, Clone, Copy)]
pub enum Data {
    Nothing,
    All,
    /// The length, and zeros for what is new.
    Zeros,
    /// All but a part of this write.
    Torn(At),
    Until(At),
    Random(u64),
}

impl Cut {
    /// The changes that it names.
    pub fn named(self) -> Vec<At> {
        let names = match self.names {
            Kept::Only(at) | Kept::AllBut(at) | Kept::Until(at) => Some(at),
            _ => None,
        };
        let data = match self.data {
            Data::Torn(at) | Data::Until(at) => Some(at),
            _ => None,
        };
        names.into_iter().chain(data).collect()
    }
}

enum Fate {
    Lost,
    Kept,
    Zeros,
    Torn,
}

impl Kept {
    fn keeps(self, at: At, folder: Id) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Only(only) => at == only,
            Self::AllBut(not) => at != not,
            Self::Until(last) => at <= last,
            Self::Random(seed) => mixed(seed, at, folder).is_multiple_of(2),
        }
    }
}

impl Data {
    fn fate(self, at: At, file: Id) -> Fate {
        let is = |kept| if kept { Fate::Kept } else { Fate::Lost };
        match self {
            Self::Nothing => Fate::Lost,
            Self::All => Fate::Kept,
            Self::Zeros => Fate::Zeros,
            Self::Torn(torn) if at == torn => Fate::Torn,
            Self::Torn(_) => Fate::Kept,
            Self::Until(last) => is(at <= last),
            Self::Random(seed) => match mixed(seed, at, file) % 8 {
                0..3 => Fate::Kept,
                3..6 => Fate::Lost,
                6 => Fate::Zeros,
                _ => Fate::Torn,
            },
        }
    }
}

fn mixed(seed: u64, at: At, of: Id) -> u64 {
    digest(&(seed, at, of))
}

fn digest(of: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

impl Content {
    fn new(bytes: Vec<u8>, modified: u64) -> Self {
        Self { digest: digest(&bytes[..]), bytes: bytes.into(), modified }
    }
}

impl Edit {
    fn apply(&self, fate: &Fate, content: &mut Vec<u8>, time: &mut u64) {
        match (self, fate) {
            (_, Fate::Lost) => {}
            (Self::Cut { length, modified }, _) => {
                content.truncate(*length);
                *time = *modified;
            }
            (Self::Write { at, bytes, modified }, _) => {
                let written = match fate {
                    Fate::Torn => &bytes[..sectors(bytes.len())],
                    _ => bytes,
                };
                let before = content.len();
                content.resize(before.max(at + written.len()), 0);
                if !matches!(fate, Fate::Zeros) {
                    content[*at..at + written.len()].copy_from_slice(written);
                }
                *time = *modified;
            }
        }
    }
}

/// About half of a write, as whole sectors where it has several.
fn sectors(length: usize) -> usize {
    [4096, 512]
        .into_iter()
        .find(|sector| length > *sector)
        .map_or(length / 2, |s| (length / 2).next_multiple_of(s))
}

impl File {
    fn set(&mut self, at: At, new: Vec<u8>, modified: u64) {
        let old = self.now.bytes.clone();
        if new.len() < old.len() {
            self.unsynced.push((at, Edit::Cut { length: new.len(), modified }));
        }
        let common = new.len().min(old.len());
        let first = (0..common).find(|i| new[*i] != old[*i]).unwrap_or(common);
        let end = if new.len() > old.len() {
            new.len()
        } else {
            (first..common).rev().find(|i| new[*i] != old[*i]).map_or(first, |last| last + 1)
        };
        if first < end {
            self.unsynced
                .push((at, Edit::Write { at: first, bytes: new[first..end].into(), modified }));
        }
        self.now = Content::new(new, modified);
    }

    fn after(&self, data: Data, id: Id) -> Content {
        if self.unsynced.is_empty() {
            return self.lasting.clone();
        }
        let (mut bytes, mut modified) = (self.lasting.bytes.to_vec(), self.lasting.modified);
        for (at, edit) in &self.unsynced {
            edit.apply(&data.fate(*at, id), &mut bytes, &mut modified);
        }
        Content::new(bytes, modified)
    }
}

impl Disk {
    /// What is in a folder; all of it lasts.
    pub fn of(folder: &Path) -> Self {
        let mut disk = Self { nodes: vec![Arc::new(Node::Folder(Folder::default()))] };
        disk.add_all(ROOT, folder, &mut BTreeMap::new());
        disk
    }

    fn add_all(&mut self, to: Id, folder: &Path, files: &mut BTreeMap<u64, Id>) {
        use std::os::unix::fs::MetadataExt;
        for entry in std::fs::read_dir(folder).unwrap() {
            let (path, metadata) = { entry.map(|e| (e.path(), e.metadata().unwrap())) }.unwrap();
            let modified = metadata.mtime() as u64 * 1_000_000_000 + metadata.mtime_nsec() as u64;
            let id = if metadata.is_dir() {
                let id = self.add(Node::Folder(Folder::default()));
                self.add_all(id, &path, files);
                id
            } else if metadata.is_symlink() {
                self.add(Node::Symlink(
                    std::fs::read_link(&path).unwrap().to_string_lossy().into_owned(),
                ))
            } else if let Some(id) = files.get(&metadata.ino()) {
                *id
            } else {
                let lasting = Content::new(std::fs::read(&path).unwrap(), modified);
                let (inode, now) = (metadata.ino(), lasting.clone());
                let id = self.add(Node::File(File { inode, lasting, now, unsynced: Vec::new() }));
                files.insert(inode, id);
                id
            };
            let folder = self.folder_mut(to);
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            folder.lasting.insert(name.clone(), id);
            folder.now.insert(name, id);
        }
    }

    fn add(&mut self, node: Node) -> Id {
        self.nodes.push(Arc::new(node));
        self.nodes.len() - 1
    }

    fn folder(&self, id: Id) -> Option<&Folder> {
        match &*self.nodes[id] {
            Node::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    fn folder_mut(&mut self, id: Id) -> &mut Folder {
        match Arc::make_mut(&mut self.nodes[id]) {
            Node::Folder(folder) => folder,
            _ => panic!("a file was used as a folder"),
        }
    }

    fn find(&self, name: &str) -> Option<Id> {
        let parts = name.split('/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(ROOT, |at, part| self.folder(at)?.now.get(part).copied())
    }

    /// The folder of a name, and the name in it.
    fn place(&self, name: &str) -> Result<(Id, String), String> {
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        let id = self
            .find(folder)
            .ok_or_else(|| format!("nothing recorded makes the folder of {name}"))?;
        Ok((id, last.to_owned()))
    }

    /// The file that is meant: the one of that name, or of that number where the name is gone.
    fn file(&self, name: &str, inode: u64) -> Option<Id> {
        let is = |id: &Id| matches!(&*self.nodes[*id], Node::File(file) if file.inode == inode);
        let named = |id: &Id| {
            let folders = (0..self.nodes.len()).filter_map(|folder| self.folder(folder));
            folders.into_iter().any(|folder| folder.now.values().any(|found| found == id))
        };
        self.find(name).filter(is).or_else(|| (0..self.nodes.len()).rev().filter(is).find(named))
    }

    fn rename(&mut self, at: At, folder: Id, names: Names) {
        let folder = self.folder_mut(folder);
        apply(&mut folder.now, &names);
        folder.unsynced.push((at, names));
    }

    fn sync(&mut self, id: Id) {
        match Arc::make_mut(&mut self.nodes[id]) {
            Node::File(file) => {
                file.lasting = file.now.clone();
                file.unsynced.clear();
            }
            Node::Folder(folder) => {
                folder.lasting = folder.now.clone();
                folder.unsynced.clear();
            }
            Node::Symlink(_) => {}
        }
    }

    /// Makes a change. Fails if it cannot be: then the recorder missed something.
    pub fn change(&mut self, at: At, change: &Change) -> Result<(), String> {
        let missed = |name: &str| format!("nothing recorded makes {name}");
        match change {
            Change::Told(_) => {}
            Change::Content { name, about: About { inode, modified }, bytes } => {
                let id = match self.file(name, *inode) {
                    Some(id) => id,
                    None => self.create(at, name, *inode)?,
                };
                if let Node::File(file) = Arc::make_mut(&mut self.nodes[id]) {
                    file.set(at, bytes.clone(), *modified);
                }
            }
            Change::Folder { name } => {
                let (folder, last) = self.place(name)?;
                let id = self.add(Node::Folder(Folder::default()));
                self.rename(at, folder, vec![(last, Some(id))]);
            }
            Change::Symlink { name, target } => {
                let (folder, last) = self.place(name)?;
                let id = self.add(Node::Symlink(target.clone()));
                self.rename(at, folder, vec![(last, Some(id))]);
            }
            Change::Link { from, to, about } => {
                match self.file(from, about.inode) {
                    Some(id) => {
                        let (folder, last) = self.place(to)?;
                        self.rename(at, folder, vec![(last, Some(id))]);
                    }
                    None => drop(self.create(at, to, about.inode)?),
                };
            }
            Change::Remove { name } => {
                self.find(name).ok_or_else(|| missed(name))?;
                let (folder, last) = self.place(name)?;
                self.rename(at, folder, vec![(last, None)]);
            }
            Change::Rename { from, to } => {
                let id = self.find(from).ok_or_else(|| missed(from))?;
                // Two names of one file: then a rename does nothing.
                if self.find(to) == Some(id) {
                    return Ok(());
                }
                let ((here, old), (there, new)) = (self.place(from)?, self.place(to)?);
                if here == there {
                    self.rename(at, here, vec![(old, None), (new, Some(id))]);
                } else {
                    self.rename(at, here, vec![(old, None)]);
                    self.rename(at, there, vec![(new, Some(id))]);
                }
            }
            Change::Exchange { one, other } => {
                let found = |name: &str| self.find(name).ok_or_else(|| missed(name));
                let (first, second) = (found(one)?, found(other)?);
                let ((here, one), (there, other)) = (self.place(one)?, self.place(other)?);
                self.rename(at, here, vec![(one, Some(second))]);
                self.rename(at, there, vec![(other, Some(first))]);
            }
            Change::SyncFile { name, about } => {
                if let Some(id) = self.file(name, about.inode) {
                    self.sync(id);
                }
            }
            Change::SyncFolder { name } => {
                let id = self.find(name).ok_or_else(|| missed(name))?;
                self.sync(id);
            }
            Change::SyncAll => (0..self.nodes.len()).for_each(|id| self.sync(id)),
        }
        Ok(())
    }

    fn create(&mut self, at: At, name: &str, inode: u64) -> Result<Id, String> {
        let (folder, last) = self.place(name)?;
        let empty = Content::new(Vec::new(), 0);
        let file = File { inode, lasting: empty.clone(), now: empty, unsynced: Vec::new() };
        let id = self.add(Node::File(file));
        self.rename(at, folder, vec![(last, Some(id))]);
        Ok(id)
    }

    /// The unsynced changes of names and of content that may be seen after a power cut.
    pub fn unsynced(&self) -> (Vec<At>, Vec<At>) {
        let (mut names, mut data) = (Vec::new(), Vec::new());
        let (mut seen, mut next) = (vec![false; self.nodes.len()], vec![ROOT]);
        while let Some(id) = next.pop() {
            if std::mem::replace(&mut seen[id], true) {
                continue;
            }
            match &*self.nodes[id] {
                Node::File(file) => data.extend(file.unsynced.iter().map(|(at, _)| *at)),
                Node::Folder(folder) => {
                    names.extend(folder.unsynced.iter().map(|(at, _)| *at));
                    next.extend(folder.lasting.values());
                    next.extend(
                        folder
                            .unsynced
                            .iter()
                            .flat_map(|(_, n)| n.iter().filter_map(|(_, id)| *id)),
                    );
                }
                Node::Symlink(_) => {}
            }
        }
        for list in [&mut names, &mut data] {
            list.sort_unstable();
            list.dedup();
        }
        (names, data)
    }

    /// What a power cut leaves.
    pub fn after(&self, cut: Cut) -> Tree {
        let mut tree = Tree::default();
        self.collect(ROOT, "", cut, &mut tree, 0);
        tree
    }

    /// What is there now.
    pub fn now(&self) -> Tree {
        self.after(Cut { names: Kept::All, data: Data::All })
    }

    fn collect(&self, folder: Id, path: &str, cut: Cut, tree: &mut Tree, depth: usize) {
        let Some(found) = self.folder(folder).filter(|_| depth < 64) else { return };
        let mut names = found.lasting.clone();
        for (at, change) in &found.unsynced {
            if cut.names.keeps(*at, folder) {
                apply(&mut names, change);
            }
        }
        for (name, id) in names {
            let path = format!("{path}{name}");
            match &*self.nodes[id] {
                Node::File(file) => {
                    drop(tree.0.insert(path, Item::File(id, file.after(cut.data, id))))
                }
                Node::Symlink(target) => drop(tree.0.insert(path, Item::Symlink(target.clone()))),
                Node::Folder(_) => {
                    self.collect(id, &format!("{path}/"), cut, tree, depth + 1);
                    tree.0.insert(path, Item::Folder);
                }
            }
        }
    }
}

fn apply(names: &mut BTreeMap<String, Id>, change: &Names) {
    for (name, id) in change {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

/// Files and folders by path.
#[derive(Default)]
pub struct Tree(BTreeMap<String, Item>);

enum Item {
    Folder,
    /// Files of the same number are one file with several names.
    File(Id, Content),
    Symlink(String),
}

impl Tree {
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, item) in &self.0 {
            let content = match item {
                Item::Folder => 0,
                Item::File(_, content) => content.digest,
                Item::Symlink(target) => digest(target),
            };
            (path, std::mem::discriminant(item), content).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// The first path at which two trees differ.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let same = |path: &String| match (self.0.get(path), other.0.get(path)) {
            (Some(Item::Folder), Some(Item::Folder)) => true,
            (Some(Item::File(_, one)), Some(Item::File(_, two))) => one.bytes == two.bytes,
            (Some(Item::Symlink(one)), Some(Item::Symlink(two))) => one == two,
            _ => false,
        };
        self.0.keys().chain(other.0.keys()).find(|path| !same(path)).cloned()
    }

    /// The content of a file.
    pub fn text(&self, path: &str) -> Option<String> {
        match self.0.get(path)? {
            Item::File(_, content) => Some(String::from_utf8_lossy(&content.bytes).into_owned()),
            _ => None,
        }
    }

    /// Makes a folder hold this and nothing else.
    pub fn put(&self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir_all(path).unwrap()
            } else {
                std::fs::remove_file(path).unwrap()
            }
        }
        // Names in order, so a folder comes before what is in it.
        let mut written: BTreeMap<Id, &String> = BTreeMap::new();
        for (path, item) in &self.0 {
            let place = folder.join(path);
            match item {
                Item::Folder => std::fs::create_dir(place).unwrap(),
                Item::Symlink(target) => std::os::unix::fs::symlink(target, place).unwrap(),
                Item::File(id, content) => match written.insert(*id, path) {
                    Some(first) => std::fs::hard_link(folder.join(first), place).unwrap(),
                    None => {
                        std::fs::write(&place, &content.bytes).unwrap();
                        let time = UNIX_EPOCH + Duration::from_nanos(content.modified);
                        let file = std::fs::File::options().write(true).open(&place).unwrap();
                        file.set_modified(time).unwrap();
                    }
                },
            }
        }
    }
}
