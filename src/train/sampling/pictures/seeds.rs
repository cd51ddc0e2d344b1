//! Seeds as a person writes them: `0-49999`, `3`, `1,5,7-9`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seeds, at most.
const MOST: u64 = 1_000_000;

/// Some seeds, in the order in which they were written, each once.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "Written", extend("examples" = ["0-49999", "1,5,7-9", 3]))]
pub struct Seeds(#[schemars(skip)] Vec<RangeInclusive<u64>>);

impl Seeds {
    /// Seeds from 0 on.
    pub fn first(count: u64) -> Self {
        Self(Vec::from_iter(count.checked_sub(1).map(|last| 0..=last)))
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| range.end() - range.start() + 1).sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().cloned().flatten()
    }

    pub fn contains(&self, seed: u64) -> bool {
        self.0.iter().any(|range| range.contains(&seed))
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let wrong = || format!("`{text}` is no seed; write 3, 0-49999 or 1,5,7-9");
            text.trim().parse::<u64>().map_err(|_| wrong())
        };
        let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
        let mut count = 0u64;
        for part in text.split(',') {
            let range = match part.split_once('-') {
                Some((first, last)) => number(first)?..=number(last)?,
                None => number(part)?..=number(part)?,
            };
            let (first, last) = (*range.start(), *range.end());
            if first > last {
                return Err(format!("{first}-{last} begins behind its end"));
            }
            if let Some(other) = ranges.iter().find(|r| *r.start() <= last && first <= *r.end()) {
                let twice = first.max(*other.start());
                return Err(format!("seed {twice} is named twice"));
            }
            count = count.saturating_add((last - first).saturating_add(1));
            if count > MOST {
                return Err(format!("more than {MOST} seeds"));
            }
            ranges.push(range);
        }
        Ok(Self(ranges))
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let (comma, first) = (if index > 0 { "," } else { "" }, range.start());
            match range.end() {
                last if last == first => write!(f, "{comma}{first}")?,
                last => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Seeds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One seed is a number in YAML, and several are a text.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Written {
    One(u64),
    Some(String),
}

impl<'de> Deserialize<'de> for Seeds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer) {
            Ok(Written::One(seed)) => Ok(Self(vec![seed..=seed])),
            Ok(Written::Some(text)) => text.parse().map_err(serde::de::Error::custom),
            Err(_) => Err(serde::de::Error::custom("expected seeds: 3, 0-49999 or 1,5,7-9")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_as_they_are_written_and_written_as_they_are_read() {
        for (text, seeds) in [
            ("3", vec![3]),
            ("0-4", vec![0, 1, 2, 3, 4]),
            ("1,5,7-9", vec![1, 5, 7, 8, 9]),
            ("18446744073709551615", vec![u64::MAX]),
        ] {
            let read: Seeds = text.parse().unwrap();
            assert_eq!((read.iter().collect::<Vec<_>>(), read.to_string()), (seeds, text.into()));
            assert_eq!(read.count(), read.iter().count() as u64);
            assert!(read.iter().all(|seed| read.contains(seed)) && !read.contains(10));
            let again: Seeds =
                serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
            assert_eq!(again, read);
        }
        assert_eq!(" 1, 2 - 3".parse::<Seeds>().unwrap().to_string(), "1,2-3");
        let one: Seeds = serde_json::from_str("7").unwrap();
        assert_eq!(one.to_string(), "7");
    }

    #[test]
    fn what_is_no_list_of_seeds_is_refused() {
        for (text, said) in [
            ("", "`` is no seed"),
            ("a", "`a` is no seed"),
            ("-3", "`` is no seed"),
            ("4-2", "4-2 begins behind its end"),
            ("1,1", "seed 1 is named twice"),
            ("0-9,5-20", "seed 5 is named twice"),
            ("0-18446744073709551615", "more than 1000000 seeds"),
            ("1,,2", "`` is no seed"),
        ] {
            let refused = text.parse::<Seeds>().unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
        }
        assert!(serde_json::from_str::<Seeds>("[1]").is_err());
    }
}
