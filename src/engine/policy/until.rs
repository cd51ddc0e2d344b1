//! A moment at which something is to have ended, as people write it.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Days, Local, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::share::Share;

/// The end of something, or of a part of the time up to there: `1/3 of 07:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    pub moment: Moment,
    /// Of the time that is left when it begins; all of it if unset.
    pub share: Option<Share>,
}

/// A moment by the clock of this machine, written `07:00` for the next time that it is seven, or
/// `2026-12-01 07:00`; or `walltime`, the end of the job of Slurm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The next time that it is so late.
    Clock(NaiveTime),
    Date(NaiveDateTime),
    /// When the job of Slurm that it runs in is told to stop.
    Walltime,
}

const EXPECTED: &str = "a time such as `07:00` or `2026-12-01 07:00`, `walltime`, or a part of it such as `1/3 of 07:00`";

impl Until {
    /// When something has to end that begins `now`. `walltime`: when the job that it runs in is told
    /// to stop, if it is in one; without a job nothing ends it.
    pub fn after(
        self,
        now: DateTime<Local>,
        walltime: Option<DateTime<Utc>>,
    ) -> Option<DateTime<Utc>> {
        let end = self.moment.after(now, walltime)?;
        let Some(share) = self.share else { return Some(end) };
        let left = (end - now.to_utc()).max(TimeDelta::zero()).num_milliseconds();
        let part = share.rounded_down(usize::try_from(left).unwrap_or_default());
        Some(now.to_utc() + TimeDelta::milliseconds(i64::try_from(part).unwrap_or_default()))
    }

    fn of_text(text: &str) -> Option<Self> {
        let (share, moment) = match text.split_once(" of ") {
            Some((share, moment)) => (Some(Share::from_text(share)?), moment),
            None => (None, text),
        };
        Some(Self { moment: Moment::of_text(moment.trim())?, share })
    }
}

impl Moment {
    fn after(self, now: DateTime<Local>, walltime: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        match self {
            Self::Walltime => walltime,
            Self::Date(date) => Some(local(date)),
            Self::Clock(time) => {
                let today = local(now.date_naive().and_time(time));
                let tomorrow = || Some(local((now.date_naive() + Days::new(1)).and_time(time)));
                if today > now.to_utc() { Some(today) } else { tomorrow() }
            }
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        if text == "walltime" {
            return Some(Self::Walltime);
        }
        let time = |format| NaiveTime::parse_from_str(text, format).ok().map(Self::Clock);
        let date = |format| NaiveDateTime::parse_from_str(text, format).ok().map(Self::Date);
        let times = ["%H:%M", "%H:%M:%S"].into_iter().find_map(time);
        let dates = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];
        times.or_else(|| dates.into_iter().find_map(date))
    }
}

/// The moment that a clock on this wall shows; the first of two, and an hour later where the clock
/// passes it over.
fn local(date: NaiveDateTime) -> DateTime<Utc> {
    let moment = |date: NaiveDateTime| date.and_local_timezone(Local).earliest();
    let shown = moment(date).or_else(|| moment(date + TimeDelta::hours(1)));
    shown.map_or_else(|| date.and_utc(), |shown| shown.to_utc())
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(share) = self.share {
            write!(f, "{share} of ")?;
        }
        self.moment.fmt(f)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let seconds = |time: NaiveTime| if time.second() == 0 { "" } else { ":%S" };
        match self {
            Self::Clock(time) => write!(f, "{}", time.format(&format!("%H:%M{}", seconds(*time)))),
            Self::Date(date) => {
                write!(f, "{}", date.format(&format!("%Y-%m-%d %H:%M{}", seconds(date.time()))))
            }
            Self::Walltime => f.write_str("walltime"),
        }
    }
}

impl Serialize for Until {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Until;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Until, E> {
                let wrong = || E::invalid_value(Unexpected::Str(text), &self);
                Until::of_text(text).ok_or_else(wrong)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Until {
    fn schema_name() -> Cow<'static, str> {
        "Until".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let date = "([0-9]{4}-[0-9]{2}-[0-9]{2}[ T])?[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?";
        json_schema!({"type": "string", "pattern": format!("^([0-9./]+ of )?({date}|walltime)$"), "description": EXPECTED})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn until(text: &str) -> Until {
        from_value(json!(text)).unwrap()
    }

    #[test]
    fn a_time_is_the_next_one_and_a_date_stays() {
        let now = Local::now();
        for text in ["00:00", "07:00", "12:34:56", "23:59"] {
            let end = until(text).after(now, None).unwrap();
            let left = end - now.to_utc();
            assert!(left > TimeDelta::zero() && left <= TimeDelta::hours(25), "{text}: {left}");
            let shown = end.with_timezone(&Local).format("%H:%M:%S").to_string();
            assert!(shown.starts_with(text), "{text}: {shown}");
        }
        let past = until("2020-02-29 07:00").after(now, None).unwrap();
        assert!(past < now.to_utc());
        let end = DateTime::UNIX_EPOCH;
        assert_eq!(until("walltime").after(now, Some(end)), Some(end));
        assert_eq!(until("walltime").after(now, None), None);
        let end = now.to_utc() + TimeDelta::minutes(30);
        let third = until("1/3 of walltime").after(now, Some(end)).unwrap();
        assert!(
            (TimeDelta::seconds(599)..TimeDelta::seconds(601)).contains(&(third - now.to_utc()))
        );
        let past = until("1/3 of walltime").after(now, Some(now.to_utc() - TimeDelta::hours(1)));
        assert_eq!(past, Some(now.to_utc()), "at once");
    }

    #[test]
    fn what_is_written_is_read_again_and_nothing_else() {
        for (text, written) in [
            ("7:00", "07:00"),
            ("07:00:30", "07:00:30"),
            ("2026-12-01T07:00", "2026-12-01 07:00"),
            ("2026-12-01 07:00:01", "2026-12-01 07:00:01"),
            ("walltime", "walltime"),
            ("1/3 of 7:00", "1/3 of 07:00"),
            ("0.5 of walltime", "0.5 of walltime"),
        ] {
            assert_eq!(until(text).to_string(), written);
            assert_eq!(until(written), until(text));
        }
        for text in [
            "",
            "7",
            "25:00",
            "8h",
            "tomorrow",
            "2026-13-01 07:00",
            "07:00 pm",
            "2 of 07:00",
            "half of 07:00",
        ] {
            let told = from_value::<Until>(json!(text)).unwrap_err().to_string();
            assert!(told.contains("07:00"), "{told}");
        }
    }
}
