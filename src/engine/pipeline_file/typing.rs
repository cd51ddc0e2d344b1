//! Typed settings out of the layers of a stage. A value that is refused is told and left out, and
//! the rest is read again, so that a stage with several errors says them all.

use figment::Figment;
use pipe_core::error::Gathered;

use crate::pipeline_file::layers::StageLayers;
use crate::pipeline_file::paths::Place;
use crate::pipeline_file::stage_layers::LeftOut;
use crate::rejection::Rejection;

/// A stage with more errors than this is told about so many of them.
const MOST_ERRORS: usize = 50;

/// Makes typed settings of layers.
pub(super) struct Typing<'a> {
    pub kind: &'a str,
    /// What may stand there.
    pub place: Place<'a>,
    /// Where a key of this name belongs that does not belong to the stage.
    pub elsewhere: &'a dyn Fn(&str) -> Option<String>,
    pub layers: &'a mut StageLayers,
    pub left_out: &'a mut LeftOut,
    pub errors: &'a mut Gathered,
}

impl Typing<'_> {
    /// What `read` makes of the wanted keys. A value that is refused is told, left out, and the
    /// rest is read again.
    pub fn all<T>(
        self,
        wanted: impl Fn(&str) -> bool,
        required: &[&str],
        read: impl Fn(&Figment) -> Result<T, Rejection>,
    ) -> Option<T> {
        let Self { kind, place, elsewhere, layers, left_out, errors } = self;
        let lists: Vec<_> =
            layers.layers.iter().flat_map(|l| place.lists_for_mappings(&l.values)).collect();
        for path in lists {
            errors.push(
                layers.error_at(&path, "expected a mapping (`key: value` lines), found a list"),
            );
            layers.leave_out(&path);
            left_out.keys.extend(path.into_iter().next());
        }
        // Mappings in which a word was refused.
        let mut without_word: Vec<Vec<String>> = Vec::new();
        for _ in 0..MOST_ERRORS {
            let rejection = match layers.typed(&wanted, &read) {
                Ok(typed) => return Some(typed),
                Err(rejection) => rejection,
            };
            let path = rejection.path();
            if rejection.is_missing() {
                if path.len() > 1 {
                    // What stood there may have been refused.
                    if !left_out.explains(&path[0]) {
                        errors.push(layers.explain(rejection));
                    }
                    return None;
                }
                // One that is missing hides the others.
                let is_missing =
                    |key: &&&str| !left_out.explains(key) && layers.merged(key).is_none();
                let all: Vec<&&str> = required.iter().filter(is_missing).collect();
                if all.is_empty() && left_out.is_empty() {
                    errors.push(layers.explain(rejection));
                }
                for key in all {
                    errors.push(layers.whole_stage(format!("missing key `{key}`")));
                }
                return None;
            }
            // A default that does not go with what is left is nobody's error.
            if !left_out.is_empty() && !layers.has(&path) {
                return None;
            }
            let around = path.split_last().map(|(_, around)| around.to_vec()).unwrap_or_default();
            // Beside a word that was refused a value is judged by another word, which nobody chose.
            let is_doubtful = rejection.is_of_value() && without_word.contains(&around);
            if rejection.is_unknown_word() && !around.is_empty() {
                without_word.push(around);
            }
            if !is_doubtful {
                let key = rejection.unknown_key().map(str::to_owned);
                let error = layers.explain_with(rejection, kind, &place);
                let meant = key.filter(|_| path.len() == 1).and_then(|key| elsewhere(&key));
                errors.push(meant.iter().fold(error, |error, meant| error.suggest(meant)));
            }
            if !layers.leave_out(&path) {
                return None;
            }
            left_out.keys.extend(path.into_iter().next());
        }
        None
    }
}
