//! Words that were retired for one of the trade stay away: `retired_words.txt`.

use crate::sources::{Crate, crates};

struct Retired {
    word: String,
    /// It is one as a whole name alone.
    whole: bool,
    /// Names with it are still there.
    pending: bool,
}

fn retired() -> Vec<Retired> {
    let lines = include_str!("retired_words.txt").lines().map(str::trim);
    let words = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    words
        .map(|line| Retired {
            word: line.trim_start_matches(['?', '=']).to_lowercase(),
            whole: line.contains('='),
            pending: line.starts_with('?'),
        })
        .collect()
}

/// `SyncPlan` and `sync_plan` as `sync_plan`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    let mut before = '_';
    for c in name.chars() {
        if c.is_uppercase() && (before.is_lowercase() || before.is_ascii_digit()) {
            text.push('_');
        }
        text.extend(c.to_lowercase());
        before = c;
    }
    text
}

impl Retired {
    fn is_in(&self, name: &str) -> bool {
        let name = snake(name);
        if self.whole {
            name == self.word
        } else {
            format!("_{name}_").contains(&format!("_{}_", self.word))
        }
    }
}

/// Names of public items, each with its file.
fn public(of: &Crate) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for source in of.modules.values() {
        let words: Vec<&str> = source
            .code
            .split(|c: char| c.is_whitespace() || "(){}<>;:,=[]!&".contains(c))
            .filter(|w| !w.is_empty())
            .collect();
        for at in words.iter().enumerate().filter(|(_, word)| **word == "pub").map(|(at, _)| at) {
            let after = &words[at + 1..];
            let skip = ["crate", "super", "async", "unsafe", "extern", "mut"];
            let after: Vec<&str> =
                after.iter().copied().skip_while(|w| skip.contains(w)).take(3).collect();
            let name = match after.as_slice() {
                ["const", "fn", name] => name,
                [
                    "fn" | "struct" | "enum" | "trait" | "mod" | "const" | "static" | "type",
                    name,
                    ..,
                ] => name,
                _ => continue,
            };
            found.push(((*name).to_owned(), source.path.clone()));
        }
    }
    found
}

#[test]
fn no_public_name_has_a_retired_word() {
    let all: Vec<(String, String)> = crates().iter().flat_map(public).collect();
    assert!(all.len() > 500, "{} public names", all.len());
    let mut wrong = Vec::new();
    for word in retired() {
        let found: Vec<&(String, String)> =
            all.iter().filter(|(name, _)| word.is_in(name)).collect();
        if !word.pending {
            wrong.extend(found.iter().map(|(name, path)| format!("{path}: {name}")));
        } else if found.is_empty() {
            println!("{}: gone; take the mark away", word.word);
        } else {
            println!("{}: {} names to go", word.word, found.len());
        }
    }
    assert!(
        wrong.is_empty(),
        "names with retired words (retired_words.txt):\n{}",
        wrong.join("\n")
    );
}

#[test]
fn words_are_found_between_capitals_and_underscores() {
    let word = |text: &str, whole| Retired { word: text.to_lowercase(), whole, pending: false };
    assert!(word("Way", false).is_in("SyncWay") && word("way", false).is_in("way_back"));
    assert!(!word("way", false).is_in("always") && !word("Pin", false).is_in("Mapping"));
    assert!(
        word("gone_here", false).is_in("GoneHere") && !word("Notice", true).is_in("NoticeBoard")
    );
}
