//! Successive halving: which members of a matrix go on from a rung to the next. Pure: how far each
//! is and what it was measured at in, the decision out, so that a search in one piece, one in many
//! and a changed one come to the same.
//!
//! Sources: Jamieson and Talwalkar 2016, arXiv:1502.07943, algorithm 1; asynchronously Li et al.
//! 2020, arXiv:1810.05934, algorithm 2.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Share;
use crate::rejection::Rejection;

/// The members of the stage's matrix are carried on rung by rung, and the better part of them goes
/// on to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Halving {
    /// How far a member is carried before the better part goes on, in epochs, rising. The last one
    /// is the whole length of the stage: its `epochs`, which can be left out.
    pub rungs: Vec<u64>,
    /// The share of those at a rung that go on, rounded down, and one at least.
    pub keep: Share,
    /// The metric of an epoch that they are compared by, at the rung's epoch.
    pub monitor: String,
    /// Whether a lower or a higher value is better.
    #[serde(default)]
    pub mode: Better,
    /// Members that run at once, whatever `--jobs` allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_parallel: Option<u32>,
    /// Whether a member goes on as soon as it is among the better part of those that have come so
    /// far, and waits for no others. What was decided is noted, and kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub asynchronous: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The lower one.
    #[default]
    Min,
    /// The higher one.
    Max,
}

/// How far one member is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemberProgress {
    /// Epochs that stand.
    pub position: u64,
    /// It has come to its end, whatever is asked of it.
    pub has_ended: bool,
    /// Nothing more is to be expected of it.
    pub has_failed: bool,
    /// The metric, by epoch.
    pub values: BTreeMap<u64, f64>,
}

impl MemberProgress {
    pub fn has_reached(&self, epoch: u64) -> bool {
        self.has_ended || self.position >= epoch
    }

    /// What it was measured at at an epoch, or at the last one before it: a member that ended early
    /// is compared by its end.
    fn value(&self, epoch: u64) -> Option<f64> {
        let (_, value) = self.values.range(..=epoch).next_back()?;
        Some(*value).filter(|value| value.is_finite() && !self.has_failed)
    }
}

/// What is to become of one member, as far as that is known.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Course {
    /// The rung that it is to be carried to, counted from 0.
    pub rung: usize,
    /// It goes no further than that.
    pub is_final: bool,
    /// Its place at the last rung that it was compared at.
    pub place: Option<Place>,
}

/// A place among those at one rung.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// The rung's epoch.
    pub epoch: u64,
    /// Counted from 1.
    pub place: usize,
    pub of: usize,
    /// What it was measured at.
    pub value: Option<f64>,
}

impl Halving {
    /// Checks what its types cannot.
    pub(crate) fn check(&self) -> Result<(), Rejection> {
        let wrong = |key: &str, message: &str| Err(Rejection::value(key, message));
        match self.rungs.as_slice() {
            [] | [_] => return wrong("halving.rungs", "expected at least two numbers of epochs"),
            [0, ..] => return wrong("halving.rungs", "the first rung is 1 epoch or later"),
            rungs if !rungs.is_sorted_by(|a, b| a < b) => {
                return wrong("halving.rungs", "expected numbers of epochs that rise");
            }
            _ => {}
        }
        if self.max_parallel == Some(0) {
            return wrong("halving.max_parallel", "expected at least 1");
        }
        Ok(())
    }

    /// The epoch of a rung; that of the last one for those behind it.
    pub fn until(&self, rung: usize) -> u64 {
        self.rungs.get(rung).or(self.rungs.last()).copied().unwrap_or(0)
    }

    /// The rung that a member was let go on to, by the epoch that it was last carried to; the first
    /// one, where it has not come to the rung before that.
    pub fn promoted(&self, noted: Option<u64>, member: &MemberProgress) -> usize {
        let below = self.rungs.partition_point(|rung| noted.is_some_and(|noted| *rung <= noted));
        let rung = below.saturating_sub(1);
        if rung > 0 && member.has_reached(self.until(rung - 1)) { rung } else { 0 }
    }

    fn last(&self) -> usize {
        self.rungs.len().saturating_sub(1)
    }

    /// How many of so many members get to each rung, where none fails.
    pub fn sizes(&self, members: usize) -> Vec<usize> {
        let next = |size: &usize| Some(self.keep.of(*size));
        std::iter::successors(Some(members), next).take(self.rungs.len()).collect()
    }

    /// The epochs that so many members come to in all, where none fails.
    pub fn epochs(&self, members: usize) -> u64 {
        let sizes = self.sizes(members).into_iter();
        let lengths =
            self.rungs.iter().scan(0, |before, rung| Some(rung - std::mem::replace(before, *rung)));
        sizes.zip(lengths).map(|(size, length)| size as u64 * length).sum()
    }

    /// Better first; those that were measured at nothing last; of equals the first.
    fn ranked(&self, members: &[MemberProgress], at: Vec<usize>, epoch: u64) -> Vec<usize> {
        let with_value = |member: usize| (members[member].value(epoch), member);
        let mut ranked: Vec<_> = at.into_iter().map(with_value).collect();
        ranked.sort_by(|(a, _), (b, _)| match (a, b) {
            (Some(a), Some(b)) => match self.mode {
                Better::Min => a.total_cmp(b),
                Better::Max => b.total_cmp(a),
            },
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        });
        ranked.into_iter().map(|(_, member)| member).collect()
    }

    /// What is to become of each member. `promoted`: the rung that each was let go on to so far;
    /// looked at and moved on where they go on asynchronously.
    pub fn courses(&self, members: &[MemberProgress], promoted: &mut [usize]) -> Vec<Course> {
        if self.asynchronous {
            self.promote(members, promoted);
            return self.asynchronous_courses(members, promoted);
        }
        let mut courses = vec![Course::default(); members.len()];
        let mut at: Vec<usize> = (0..members.len()).collect();
        for rung in 0..self.rungs.len() {
            let until = self.until(rung);
            let is_last = rung == self.last();
            at.iter().for_each(|&m| {
                let is_final = is_last || members[m].has_failed;
                courses[m] = Course { rung, is_final, place: courses[m].place };
            });
            if at.iter().any(|&m| !members[m].has_failed && !members[m].has_reached(until)) {
                break;
            }
            let keep = self.keep.of(at.len());
            at = self.ranked(members, at, until);
            self.place(&at, members, until, &mut courses);
            let goes_on = |m: usize| !is_last && members[m].value(until).is_some();
            let (next, rest): (Vec<_>, Vec<_>) =
                at.iter().enumerate().partition(|(place, m)| *place < keep && goes_on(**m));
            rest.into_iter().for_each(|(_, &m)| courses[m].is_final = true);
            at = next.into_iter().map(|(_, &m)| m).collect();
            // In their order in the file, by which equals are told apart at the next rung too.
            at.sort_unstable();
        }
        courses
    }

    fn place(
        &self,
        ranked: &[usize],
        members: &[MemberProgress],
        until: u64,
        courses: &mut [Course],
    ) {
        for (place, &member) in ranked.iter().enumerate() {
            let value = members[member].value(until);
            let (place, of) = (place + 1, ranked.len());
            courses[member].place = Some(Place { epoch: until, place, of, value });
        }
    }

    /// Those that have come to a rung so far, better first.
    fn arrived(&self, members: &[MemberProgress], promoted: &[usize], rung: usize) -> Vec<usize> {
        let until = self.until(rung);
        let has_come = |&m: &usize| {
            promoted[m] >= rung && (members[m].has_failed || members[m].has_reached(until))
        };
        self.ranked(members, (0..members.len()).filter(has_come).collect(), until)
    }

    /// Whether a member is still on its way to the rung that it was let go on to.
    fn is_on_its_way(&self, member: &MemberProgress, rung: usize) -> bool {
        !member.has_failed && !member.has_reached(self.until(rung))
    }

    /// Lets those go on that are among the better part of those at their rung. Once nobody more can
    /// come to a rung, one of it goes on at least.
    fn promote(&self, members: &[MemberProgress], promoted: &mut [usize]) {
        for rung in 0..self.last() {
            let ranked = self.arrived(members, promoted, rung);
            let to_come = (0..members.len())
                .any(|m| promoted[m] <= rung && self.is_on_its_way(&members[m], promoted[m]));
            let least = usize::from(!to_come);
            let keep = self.keep.rounded_down(ranked.len()).max(least);
            let until = self.until(rung);
            for &m in ranked.iter().take(keep) {
                if promoted[m] == rung && members[m].value(until).is_some() {
                    promoted[m] = rung + 1;
                }
            }
        }
    }

    fn asynchronous_courses(&self, members: &[MemberProgress], promoted: &[usize]) -> Vec<Course> {
        let open = (0..members.len()).any(|m| self.is_on_its_way(&members[m], promoted[m]));
        let mut courses: Vec<Course> = promoted
            .iter()
            .zip(members)
            .map(|(&rung, member)| Course {
                rung,
                is_final: !open || rung >= self.last() || member.has_failed,
                place: None,
            })
            .collect();
        for rung in 0..self.rungs.len() {
            let ranked = self.arrived(members, promoted, rung);
            self.place(&ranked, members, self.until(rung), &mut courses);
        }
        courses
    }
}

#[cfg(test)]
#[path = "halving_tests.rs"]
mod tests;
