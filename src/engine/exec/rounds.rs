//! How far the stages of a halving are carried: what their inspections tell of them, and the round
//! of each that follows from that.

use std::collections::HashMap;

use pipe_core::ids::StageId;
use pipe_core::number_text;

use super::execution::{Execution, InspectedStage};
use crate::inspection::{Inspection, StageState};
use crate::pipeline_file::LoadedStage;
use crate::policy::{Course, Halving, MemberProgress, Place};

/// How far a stage is to be carried at once, for one that is halved with others.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// The position of its rung.
    pub until: u64,
    pub course: Course,
    /// The metric that it is compared by.
    pub monitor: String,
    /// Rungs in all.
    pub rungs: usize,
}

impl Round {
    pub(super) fn of(halving: &Halving, course: Course) -> Self {
        Self {
            until: halving.until(course.rung),
            course,
            monitor: halving.monitor.clone(),
            rungs: halving.rungs.len(),
        }
    }

    /// Its place at the last rung that it was compared at, such as `7th of 9 at epoch 5, val_loss
    /// 0.31`.
    pub fn place(&self) -> Option<String> {
        let Place { epoch, place, of, value } = self.course.place?;
        let measured = match value {
            Some(value) => format!("{} {}", self.monitor, number_text::short(value)),
            None => format!("no {}", self.monitor),
        };
        Some(format!("{} of {of} at epoch {epoch}, {measured}", ordinal(place)))
    }

    /// What is to become of it, for people.
    pub fn in_words(&self) -> String {
        let Course { rung, is_final, .. } = self.course;
        let place = self.place().map(|place| format!(", {place}")).unwrap_or_default();
        match (is_final, rung + 1 == self.rungs) {
            (true, false) => format!("halved out{place}"),
            (_, true) => format!("rung {} of {}, to the end{place}", rung + 1, self.rungs),
            _ => format!("rung {} of {}, to epoch {}{place}", rung + 1, self.rungs, self.until),
        }
    }
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// How far a member is that was asked for its whole length.
pub(super) fn progress(found: &Inspection) -> MemberProgress {
    let (position, has_ended) = match found.state {
        StageState::Done { .. } | StageState::Transient => (0, true),
        StageState::Partial { done, .. } => (done, false),
        StageState::Extendable { from, .. } => (from, false),
        StageState::Absent { .. } => (0, false),
    };
    MemberProgress { position, has_ended, has_failed: false, values: found.values.clone() }
}

/// The stages that are halved together.
pub(super) struct Bracket<'a> {
    pub halving: &'a Halving,
    pub members: Vec<&'a LoadedStage>,
}

impl<'a> Bracket<'a> {
    /// All those of a pipeline that `is_meant` has stages of.
    pub fn all(execution: &Execution<'a>, is_meant: impl Fn(&StageId) -> bool) -> Vec<Self> {
        let brackets = execution.graph.brackets().into_iter().filter_map(|mut members| {
            members.retain(|member| is_meant(&member.id));
            Some(Self { halving: members.first()?.options.halving.as_ref()?, members })
        });
        brackets.collect()
    }
}

/// The round of each stage that is halved with others, as they were all found when asked for their
/// whole length.
pub(super) fn rounds(
    execution: &Execution,
    found: &HashMap<StageId, InspectedStage>,
) -> HashMap<StageId, Round> {
    let mut rounds = HashMap::new();
    for Bracket { halving, members } in Bracket::all(execution, |id| found.contains_key(id)) {
        let of_found = |member: &&LoadedStage| {
            let id = &member.id;
            let known = found.get(id).filter(|_| !execution.forced.contains(id));
            let known = known.map(|found| progress(&found.inspection)).unwrap_or_default();
            MemberProgress { has_failed: execution.given_up.contains(id), ..known }
        };
        let members_progress: Vec<MemberProgress> = members.iter().map(of_found).collect();
        let noted = |member: &&LoadedStage| found.get(&member.id)?.record.as_ref()?.until;
        let mut promoted: Vec<usize> = members
            .iter()
            .zip(&members_progress)
            .map(|(member, progress)| halving.promoted(noted(member), progress))
            .collect();
        let courses = halving.courses(&members_progress, &mut promoted);
        let of = |(member, course): (&&LoadedStage, Course)| {
            (member.id.clone(), Round::of(halving, course))
        };
        rounds.extend(members.iter().zip(courses).map(of));
        for member in members {
            if let Some(until) = execution.carried.get(&member.id)
                && let Some(round) = rounds.get_mut(&member.id)
            {
                let rung = halving.rungs.iter().position(|rung| rung == until);
                round.course.rung = rung.unwrap_or(round.course.rung);
                round.until = *until;
            }
        }
    }
    rounds
}
