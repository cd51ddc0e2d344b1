//! The values of those settings, each read so that neither a shell nor `sbatch` can mistake it.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// One word for Slurm: what it means is Slurm's to say, what it may hold is said here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word(String);

impl Word {
    fn new(text: &str) -> Option<Self> {
        let inner = |c: char| c.is_ascii_alphanumeric() || "_.,:+=@/-".contains(c);
        let good = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner);
        good.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(deserializer, "one word, such as `gpu`, `a100:2` or `16G`", |given| match given {
            Given::Text(text) => Self::new(text),
            Given::Number(number) => Self::new(&number.to_string()),
        })
    }
}

impl JsonSchema for Word {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [{"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.,:+=@/-]*$"},
                                          {"type": "integer", "minimum": 0}]})
    }
}

/// A walltime. Slurm rounds it up to minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walltime(pub Duration);

impl Walltime {
    /// `90s`, `2h 30m`, or as Slurm has it: `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.
    fn parse(text: &str) -> Option<Self> {
        if !text.contains([':', '-']) {
            return humantime::parse_duration(text).ok().filter(|t| !t.is_zero()).map(Self);
        }
        let (days, clock) = match text.split_once('-') {
            Some((days, clock)) => (Some(days.parse::<u64>().ok()?), clock),
            None => (None, text),
        };
        let parts: Vec<u64> =
            clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let (hours, minutes, seconds) = match (days.is_some(), parts.as_slice()) {
            (true, &[h]) => (h, 0, 0),
            (true, &[h, m]) => (h, m, 0),
            (false, &[m, s]) => (0, m, s),
            (_, &[h, m, s]) => (h, m, s),
            _ => return None,
        };
        let hours = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?;
        let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
        Self::of_seconds(minutes.checked_mul(60)?.checked_add(seconds)?)
    }

    fn of_seconds(seconds: u64) -> Option<Self> {
        (seconds > 0).then(|| Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Walltime {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let seconds = self.0.as_secs().max(1);
        let (minutes, hours) = (seconds / 60, seconds / 3600);
        write!(f, "{}-{:02}:{:02}:{:02}", hours / 24, hours % 24, minutes % 60, seconds % 60)
    }
}

impl Serialize for Walltime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Walltime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(
            deserializer,
            "a walltime such as `8h`, `1-12:00:00` or a number of minutes",
            |given| match given {
                Given::Text(text) => Self::parse(text),
                Given::Number(minutes) => Self::of_seconds(minutes.checked_mul(60)?),
            },
        )
    }
}

impl JsonSchema for Walltime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Walltime".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1}],
                                "description": "a walltime such as `8h`, `1-12:00:00` or a number of minutes"})
    }
}

/// A further argument of `sbatch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extra(String);

/// Arguments that would change what a job is to this program.
const OURS: [&str; 24] = [
    "array",
    "batch",
    "chdir",
    "clusters",
    "comment",
    "dependency",
    "error",
    "help",
    "het-group",
    "input",
    "job-name",
    "kill-on-invalid-dep",
    "no-requeue",
    "nodes",
    "ntasks",
    "open-mode",
    "output",
    "parsable",
    "quiet",
    "requeue",
    "signal",
    "test-only",
    "wait",
    "wrap",
];

impl Extra {
    fn new(text: &str) -> Option<Self> {
        let name = text.strip_prefix("--")?.split('=').next().unwrap_or_default();
        let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !text.chars().any(char::is_control);
        // `sbatch` takes the beginning of a name for the name.
        let ours = OURS.iter().any(|own| own.starts_with(name));
        (plain && !ours).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Extra {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an argument such as `--constraint=a100` that is not one of those that pipe gives itself";
        read(deserializer, expected, |given| match given {
            Given::Text(text) => Self::new(text),
            Given::Number(_) => None,
        })
    }
}

impl JsonSchema for Extra {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Extra".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^--[A-Za-z][A-Za-z0-9-]*(=.*)?$"})
    }
}

/// What was written for a value.
enum Given<'a> {
    Text(&'a str),
    Number(u64),
}

/// Reads text or a number, and makes of it what `make` accepts.
fn read<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    expected: &'static str,
    make: fn(Given) -> Option<T>,
) -> Result<T, D::Error> {
    struct Reader<T>(&'static str, fn(Given) -> Option<T>);

    impl<T> de::Visitor<'_> for Reader<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            self.1(Given::Text(text))
                .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            let refused = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
            self.1(Given::Number(number)).ok_or_else(refused)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            match u64::try_from(number) {
                Ok(number) => self.visit_u64(number),
                Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
            }
        }
    }

    deserializer.deserialize_any(Reader(expected, make))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walltimes_are_read_as_people_and_slurm_write_them() {
        for (written, shown) in [
            ("8h", "0-08:00:00"),
            ("2h 30m", "0-02:30:00"),
            ("90", "0-01:30:00"),
            ("'45:30'", "0-00:45:30"),
            ("'12:00:00'", "0-12:00:00"),
            ("1-6", "1-06:00:00"),
            ("'2-01:30'", "2-01:30:00"),
            ("'1-12:00:01'", "1-12:00:01"),
        ] {
            let time: Walltime = serde_yaml::from_str(written).unwrap();
            assert_eq!(time.to_string(), shown, "{written}");
        }
        for wrong in ["soon", "0", "-5", "0s", "'1:2:3:4'", "'::'", "'1-'", "99999999999999999999"]
        {
            assert!(serde_yaml::from_str::<Walltime>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_that_a_shell_or_sbatch_could_mistake_gets_through() {
        for wrong in ["--help", "a b", "'a;b'", "'$(x)'", "''", "\"a\\nb\"", "[a]"] {
            assert!(serde_yaml::from_str::<Word>(wrong).is_err(), "{wrong}");
        }
        for wrong in [
            "script.sh",
            "-p",
            "--",
            "--dep=afterok:1",
            "--output=x",
            "--wrap=x",
            "\"--x=a\\nb\"",
            "--sig=B:9",
        ] {
            assert!(serde_yaml::from_str::<Extra>(wrong).is_err(), "{wrong}");
        }
        let message = serde_yaml::from_str::<Word>("a lot").unwrap_err().to_string();
        assert!(message.contains("expected one word, such as"), "{message}");
    }
}
