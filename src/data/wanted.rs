//! The settings `classes` and `groups` together: which classes of a source are read, and which of
//! them training sees as one.
//!
//! A source reads the classes that [`WantedClasses::select`] gives, and knows nothing of groups.
//! [`WantedClasses::labels`] then says which label each of them has.

use std::collections::{BTreeMap, BTreeSet};

use crate::class_name::ClassName;
use crate::classes::{self, ClassSelection, Superclass};
use crate::error::DataError;

/// The value of `groups`: the classes of each group by its name.
pub type ClassGroups = BTreeMap<String, Vec<ClassName>>;

/// What the settings say of classes.
#[derive(Clone, Copy)]
pub struct WantedClasses<'a> {
    pub(crate) classes: Option<&'a ClassSelection>,
    pub(crate) groups: &'a ClassGroups,
}

/// A class or superclass that is asked for, and the group that asks for it.
struct Request<'a> {
    name: ClassName,
    group: Option<&'a str>,
}

/// The labels of a source's classes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    /// In the order of the labels.
    pub names: Vec<String>,
    /// `[classes of the source]`, positions in `names`.
    pub of_class: Vec<u32>,
}

impl Request<'_> {
    fn wrong(&self, reason: String) -> DataError {
        match self.group {
            Some(group) => DataError::setting("groups", format!("{group}: {reason}")),
            None => DataError::setting("classes", reason),
        }
    }

    /// The error of a class that `earlier` asks for too, if one of the two is in a group.
    fn twice(&self, earlier: &Self, class: &str) -> DataError {
        match (earlier.group, self.group) {
            (Some(one), Some(other)) if one != other => self
                .wrong(format!("{class} stands in the group {one} too, and a class has one label")),
            (Some(_), Some(_)) => self.wrong(format!("{class} stands twice in the group")),
            (one, _) => {
                let in_group = if one.is_some() { earlier } else { self };
                in_group
                    .wrong(format!("{class} stands in `classes` too, and a class has one label"))
            }
        }
    }
}

impl<'a> WantedClasses<'a> {
    /// Refuses empty lists, names that stand twice, and groups that `classes` leaves out. Folders
    /// may differ in spelling only where `by_spelling`.
    pub(crate) fn validate(self, by_spelling: bool) -> Result<(), DataError> {
        if self.classes.is_some_and(ClassSelection::is_empty) {
            let reason = "the list is empty; leave the key out to take all classes";
            return Err(DataError::setting("classes", reason));
        }
        let wrong = |group: &str, reason: &str| {
            Err(DataError::setting("groups", format!("{group}: {reason}")))
        };
        for (group, members) in self.groups {
            if group.trim().is_empty() {
                return Err(DataError::setting("groups", "a group has an empty name"));
            }
            if members.is_empty() {
                return wrong(group, "the group is empty; list its classes or remove it");
            }
            match self.classes {
                Some(ClassSelection::Trees) => {
                    let reason = "`classes: trees` names no group; list groups and classes there, or leave it out";
                    return wrong(group, reason);
                }
                Some(ClassSelection::Names(names))
                    if !names.iter().any(|n| is_called(n, group)) =>
                {
                    return wrong(
                        group,
                        "`classes` does not list this group; add it there or remove it",
                    );
                }
                _ => {}
            }
        }
        self.refuse_twice(by_spelling)
    }

    /// Refuses a class that is asked for twice, as far as its spelling tells.
    fn refuse_twice(self, by_spelling: bool) -> Result<(), DataError> {
        if let Some(ClassSelection::Names(names)) = self.classes {
            for (i, name) in names.iter().enumerate() {
                if names[..i].iter().any(|earlier| classes::alike(earlier, name, by_spelling)) {
                    let reason = format!("{name} stands twice in the list");
                    return Err(DataError::setting("classes", reason));
                }
            }
        }
        if self.groups.is_empty() {
            return Ok(());
        }
        let requests = self.requests().unwrap_or_default();
        for (i, request) in requests.iter().enumerate() {
            let alike = |e: &&Request| classes::alike(&e.name, &request.name, by_spelling);
            if let Some(earlier) = requests[..i].iter().find(alike) {
                return Err(request.twice(earlier, &request.name.to_string()));
            }
        }
        Ok(())
    }

    /// What is asked for, in the order of the labels; `None` for all classes, each by itself.
    fn requests(self) -> Option<Vec<Request<'a>>> {
        let alone = |name: &ClassName| vec![Request { name: name.clone(), group: None }];
        let members = |(group, members): (&'a String, &'a Vec<ClassName>)| {
            let of = |name: &ClassName| Request { name: name.clone(), group: Some(group) };
            members.iter().map(of).collect::<Vec<_>>()
        };
        let lists = match self.classes {
            None if self.groups.is_empty() => return None,
            None => self.groups.iter().map(members).collect::<Vec<_>>(),
            Some(ClassSelection::Trees) => {
                classes::TREES.iter().map(|name| alone(&ClassName::from(*name))).collect()
            }
            Some(ClassSelection::Names(names)) => {
                let group = |name: &ClassName| self.groups.iter().find(|(g, _)| is_called(name, g));
                names.iter().map(|name| group(name).map_or_else(|| alone(name), members)).collect()
            }
        };
        Some(lists.into_iter().flatten().collect())
    }

    /// The names and numbers that are asked for; none where all classes are.
    pub(crate) fn names(self) -> impl Iterator<Item = ClassName> {
        self.requests().unwrap_or_default().into_iter().map(|request| request.name)
    }

    /// How many labels there are, where the source has these superclasses; `None` if that depends
    /// on the classes that it has.
    pub(crate) fn count(self, superclasses: &[Superclass]) -> Option<usize> {
        let requests = self.requests()?;
        let groups: BTreeSet<&str> = requests.iter().filter_map(|request| request.group).collect();
        let alone = requests.iter().filter(|request| request.group.is_none());
        let classes = alone
            .map(|request| classes::superclass(&request.name, superclasses).map_or(1, <[_]>::len));
        Some(groups.len() + classes.sum::<usize>())
    }

    /// The positions in `available` of the wanted classes: those of a group stand together, and all
    /// are in the order of the labels.
    ///
    /// A name as it is spelled comes first. Else upper and lower case, spaces, `_` and `-` are
    /// alike, and a tree may go without its `_tree`. Accents may be written in one character or
    /// two: systems differ in that, and nobody sees it. What is no class may be one of the
    /// `superclasses`. A number is the class that is called so, or else the one at that position.
    pub(crate) fn select(
        self,
        available: &[String],
        superclasses: &[Superclass],
    ) -> Result<Vec<usize>, DataError> {
        let Some(requests) = self.requests() else { return Ok((0..available.len()).collect()) };
        let mut chosen: Vec<(usize, &Request)> = Vec::new();
        for request in &requests {
            let found = classes::find_all(&request.name, available, superclasses);
            for (position, name) in found.map_err(|reason| request.wrong(reason))? {
                let class = &available[position];
                match chosen.iter().find(|(other, _)| *other == position) {
                    Some((_, Request { group: None, .. })) if request.group.is_none() => {
                        let reason = format!("{name} stands twice in the list, as {class}");
                        return Err(request.wrong(reason));
                    }
                    Some((_, earlier)) => return Err(request.twice(earlier, class)),
                    None => {}
                }
                chosen.push((position, request));
            }
        }
        Ok(chosen.into_iter().map(|(position, _)| position).collect())
    }

    /// The labels of a source's classes, which are those that [`WantedClasses::select`] chose.
    ///
    /// # Errors
    /// A class beside a group of the same name.
    pub(crate) fn labels(
        self,
        class_names: &[String],
        superclasses: &[Superclass],
    ) -> Result<Labels, DataError> {
        let requests = self.requests().unwrap_or_default();
        let group_of = requests.iter().flat_map(|request| {
            let found = classes::find_all(&request.name, class_names, superclasses);
            // A number counts the classes of the source, of which only some are here.
            let count = match request.name {
                ClassName::Number(_) => 1,
                ClassName::Name(_) => found.map_or(1, |found| found.len()),
            };
            std::iter::repeat_n(request.group, count)
        });
        let group_of = group_of.chain(std::iter::repeat(None));
        let (mut names, mut of_class, mut last) = (Vec::<String>::new(), Vec::new(), None);
        for (class, group) in class_names.iter().zip(group_of) {
            if group.is_none() || group != last {
                names.push(group.unwrap_or(class).to_owned());
            }
            last = group;
            of_class.push(names.len() as u32 - 1);
        }
        let mut seen = BTreeSet::new();
        match names.iter().find(|name| self.groups.contains_key(*name) && !seen.insert(*name)) {
            Some(name) => {
                let reason = format!("{name}: a class beside the group has the same name");
                Err(DataError::setting("groups", reason))
            }
            None => Ok(Labels { names, of_class }),
        }
    }

    /// The setting that chooses classes, if one does: for messages.
    pub(crate) fn key(self) -> Option<&'static str> {
        match self.classes {
            Some(_) => Some("classes"),
            None => (!self.groups.is_empty()).then_some("groups"),
        }
    }
}

/// Whether an entry of `classes` means the group of this name.
fn is_called(name: &ClassName, group: &str) -> bool {
    matches!(name, ClassName::Name(name) if classes::same(name, group))
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    fn parse<T: DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap()
    }

    fn available() -> Vec<String> {
        ["apple", "beaver", "cat", "dog", "maple_tree", "oak_tree"].map(String::from).to_vec()
    }

    const ABOVE: [Superclass; 1] = [("trees", &["maple_tree", "oak_tree"])];

    /// The classes that are read and the labels' names, with the label of each class.
    #[track_caller]
    fn labels(classes: Option<&str>, groups: &str) -> (Vec<usize>, String) {
        let (classes, groups) = (classes.map(parse::<ClassSelection>), parse(groups));
        let wanted = WantedClasses { classes: classes.as_ref(), groups: &groups };
        wanted.validate(false).unwrap();
        let selected = wanted.select(&available(), &ABOVE).unwrap();
        let names: Vec<String> = selected.iter().map(|at| available()[*at].clone()).collect();
        let labels = wanted.labels(&names, &ABOVE).unwrap();
        assert_eq!(wanted.count(&ABOVE).unwrap_or(6), labels.names.len());
        (selected, format!("{} {:?}", labels.names.join(" "), labels.of_class))
    }

    #[track_caller]
    fn refused(classes: Option<&str>, groups: &str) -> String {
        let (classes, groups) = (classes.map(parse::<ClassSelection>), parse(groups));
        let wanted = WantedClasses { classes: classes.as_ref(), groups: &groups };
        let result = wanted.validate(false).and_then(|()| {
            let selected = wanted.select(&available(), &ABOVE)?;
            let names: Vec<String> = selected.iter().map(|at| available()[*at].clone()).collect();
            wanted.labels(&names, &ABOVE)
        });
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_group_is_one_label_for_its_names_numbers_and_superclasses() {
        let groups = r#"{"plants": ["trees", 0], "pets": ["Dog", 2]}"#;
        let found = labels(None, groups);
        assert_eq!(found, (vec![3, 2, 4, 5, 0], "pets plants [0, 0, 1, 1, 1]".to_owned()));
    }

    #[test]
    fn classes_say_the_order_of_groups_and_single_classes() {
        let groups = r#"{"plants": ["trees"], "pets": ["dog", "cat"]}"#;
        let found = labels(Some(r#"["plants", 1, "pets", "apple"]"#), groups);
        let names = "plants beaver pets apple [0, 0, 1, 2, 2, 3]".to_owned();
        assert_eq!(found, (vec![4, 5, 1, 3, 2, 0], names));
        assert_eq!(
            labels(Some(r#"["cat", "trees"]"#), "{}").1,
            "cat maple_tree oak_tree [0, 1, 2]"
        );
        assert_eq!(labels(None, "{}").0.len(), 6);
    }

    #[test]
    fn a_group_may_be_called_as_a_class() {
        assert_eq!(labels(None, r#"{"cat": ["cat", "dog"]}"#).1, "cat [0, 0]");
        let found = labels(Some(r#"["apple", "cat"]"#), r#"{"cat": ["dog", "beaver"]}"#);
        assert_eq!(found.1, "apple cat [0, 1, 1]");
        let message = refused(Some(r#"["cat", 2]"#), r#"{"cat": ["dog"]}"#);
        assert!(message.ends_with("`groups`: cat: a class beside the group has the same name"));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_group_and_class() {
        for (classes, groups, expected) in [
            (None, r#"{"a": []}"#, "`groups`: a: the group is empty"),
            (None, r#"{" ": ["cat"]}"#, "`groups`: a group has an empty name"),
            (None, r#"{"a": ["cat"], "b": ["CAT"]}"#, "b: CAT stands in the group a too"),
            (None, r#"{"a": ["cat"], "b": [2]}"#, "b: cat stands in the group a too"),
            (None, r#"{"a": ["oak", "trees"]}"#, "a: oak_tree stands twice in the group"),
            (None, r#"{"a": ["cat", "cat"]}"#, "a: cat stands twice in the group"),
            (None, r#"{"a": ["cta"]}"#, "`groups`: a: no class `cta` (nearest: cat)"),
            (None, r#"{"a": [6]}"#, "a: no class has the number 6: they are counted from 0 to 5"),
            (Some(r#"["cat"]"#), r#"{"a": ["dog"]}"#, "a: `classes` does not list this group"),
            (Some(r#""trees""#), r#"{"a": ["dog"]}"#, "a: `classes: trees` names no group"),
            (Some(r#"["a", "dog"]"#), r#"{"a": ["dog"]}"#, "a: dog stands in `classes` too"),
            (Some(r#"["oak", "a"]"#), r#"{"a": [5]}"#, "a: oak_tree stands in `classes` too"),
            (Some(r#"["a", "a"]"#), r#"{"a": [5]}"#, "`classes`: a stands twice in the list"),
            (Some("[]"), r#"{"a": [5]}"#, "`classes`: the list is empty"),
        ] {
            let message = refused(classes, groups);
            assert!(message.contains(expected), "{groups}: {message}");
        }
    }
}
