//! What is handed to a stage and what it waits for, each checked to exist and to make what is
//! wanted.

use pipe_core::error::{Gathered, SpecError, nearest};
use pipe_core::ids::StageId;
use serde_json::Value;

use crate::artifact::ArtifactType;
use crate::graph::Input;
use crate::kind::Stage;
use crate::pipeline_file::declared::{Declared, Kinds, can_make};
use crate::pipeline_file::layers::StageLayers;
use crate::pipeline_file::pipeline::{PipelineFile, StageDeclaration};
use crate::pipeline_file::values::error_at;
use crate::reference::{Reference, names_file};
use crate::source::Part;

/// What a stage needs.
#[derive(Default)]
pub(super) struct Needed {
    pub inputs: Vec<Input>,
    /// A key of the stage and the stage that it names.
    pub needs: Vec<(Vec<String>, StageId)>,
}

/// What the stage's settings refer to.
pub(super) fn referred(
    layers: &StageLayers,
    stage: &dyn Stage,
    (all, kinds): (&Declared, &Kinds),
    found: &mut Needed,
    errors: &mut Gathered,
) {
    for reference in stage.references() {
        let key = vec![reference.key.to_owned()];
        for target in errors.take(targets(layers, &reference, all, kinds)).unwrap_or_default() {
            let name = if reference.many {
                format!("{}.{target}", reference.key)
            } else {
                reference.key.to_owned()
            };
            let may_fail = reference.many && reference.passes_over_failed;
            found.inputs.push(Input {
                name,
                stage: target.clone(),
                counts: reference.mode,
                may_fail,
            });
            found.needs.push((key.clone(), target.clone()));
        }
    }
}

/// What to do where one stage is wanted and a matrix is named.
const ONE_OF_MATRIX: &str =
    "name one of its stages, or take the best with a stage `{kind: select_best, over: …}`";

/// The stages that a reference means.
fn targets<'a>(
    layers: &StageLayers,
    reference: &Reference,
    all: &'a Declared,
    kinds: &Kinds,
) -> Result<Vec<&'a StageId>, SpecError> {
    let key = [reference.key.to_owned()];
    let wanted = reference.stage.as_str();
    let targets: Vec<&StageId> = match (all.matrices.get(wanted), all.kinds.get_key_value(wanted)) {
        (Some(members), _) if reference.many => members.iter().collect(),
        (Some(members), _) => {
            let names: Vec<&str> = members.iter().map(StageId::as_str).collect();
            let message = format!(
                "stage `{wanted}` is a matrix of {} stages; one is needed here",
                names.len()
            );
            if all.groups.contains(wanted) {
                let message =
                    format!("`{wanted}` is an included file; one of its stages is needed here");
                return Err(layers.error_at(&key, message).candidates("", names));
            }
            return Err(layers.error_at(&key, message).note(ONE_OF_MATRIX).candidates("", names));
        }
        (None, Some((id, _))) => vec![id],
        (None, None) => {
            let error = layers.error_at(&key, format!("no stage is called `{wanted}`"));
            let mut names = all.names_for(&layers.stage);
            let error = match names.iter().find(|name| is_same_member(name, wanted)) {
                Some(same) => error
                    .suggest(&format!("`{same}`"))
                    .note("the keys of a matrix stand in the order of the alphabet"),
                None => {
                    let is_member = |name: &&str| name.contains('@');
                    let is_group = |id: &&StageId| all.groups.contains(id.as_str());
                    let matrices =
                        || all.matrices.keys().filter(|id| !is_group(id)).map(StageId::as_str);
                    // A slip in a matrix's name is one in it, and not in a name of one of its stages.
                    let near = nearest(
                        wanted,
                        names.iter().copied().filter(|n| !is_member(n)).chain(matrices()),
                    );
                    match near.filter(|near| !reference.many && matrices().any(|m| m == *near)) {
                        Some(matrix) => error.suggest(&format!("`{matrix}`")).note(ONE_OF_MATRIX),
                        None => {
                            let all = all.matrices.keys().filter(|_| reference.many);
                            names.extend(all.map(StageId::as_str));
                            error.candidates(wanted, names)
                        }
                    }
                }
            };
            return Err(match file_stage(reference, kinds) {
                Some(stage) => error.note(format!("a file is handed on by a stage `{stage}`")),
                None => error,
            });
        }
    };
    for target in &targets {
        // What a kind that is not known would make is not known either: it has its own error.
        let Some(kind) = all.kind(target.as_str(), kinds) else { continue };
        if !can_make(kind, reference.wants) {
            return Err(unfit(layers, reference, (target, kind.makes()), all, kinds));
        }
    }
    Ok(targets)
}

/// Whether two names are of one member of a matrix, with its values in any order.
fn is_same_member(name: &str, other: &str) -> bool {
    let parts = |name: &str| {
        let (stage, values) = name.split_once('@')?;
        let mut values: Vec<String> = values.split(',').map(str::to_owned).collect();
        values.sort();
        Some((stage.to_owned(), values))
    };
    parts(name).is_some_and(|parts_of_name| parts(other) == Some(parts_of_name))
}

/// The stage that would hand on what a reference names, if that is a file's name: no stage's has a
/// `/` or a `.`.
fn file_stage(reference: &Reference, kinds: &Kinds) -> Option<String> {
    let file = Some(&reference.stage).filter(|name| names_file(name))?;
    let mut fitting = kinds.that_make(reference.wants);
    let (kind, key) = fitting.find_map(|name| Some((name, kinds.get(name)?.0.hands_on()?)))?;
    Some(format!("{{kind: {kind}, {key}: {file}}}"))
}

/// A stage that makes something else than what is wanted: the stages that fit, or else the kinds.
fn unfit(
    layers: &StageLayers,
    reference: &Reference,
    (target, makes): (&StageId, ArtifactType),
    all: &Declared,
    kinds: &Kinds,
) -> SpecError {
    let wanted = reference.wants;
    let error = layers.error_at(&[reference.key.to_owned()], unfit_message(target, makes, wanted));
    let fits = |id: &&str| {
        *id != layers.stage.as_str() && all.kind(id, kinds).is_some_and(|k| can_make(k, wanted))
    };
    let fitting: Vec<&str> = all.names().filter(fits).collect();
    if fitting.is_empty() {
        let of_type = kinds.that_make(wanted).collect::<Vec<_>>().join(", ");
        return match of_type.as_str() {
            "" => error,
            kinds => error.note(format!("stages of these kinds make one: {kinds}")),
        };
    }
    error.nearest_of(target.as_str(), fitting)
}

/// `makes`: what a stage makes in the place of what is wanted of it.
pub(super) fn unfit_message(target: &StageId, makes: ArtifactType, wanted: ArtifactType) -> String {
    let (makes, wanted) = (with_article(makes), with_article(wanted));
    format!("stage `{target}` makes {makes}; expected one that makes {wanted}")
}

/// The type in a sentence.
fn with_article(artifact: ArtifactType) -> String {
    let name = artifact.name();
    match name.chars().next() {
        _ if [ArtifactType::FILES, ArtifactType::METRICS].contains(&artifact) => name.to_owned(),
        Some('a' | 'e' | 'i' | 'o' | 'u') => format!("an {name}"),
        _ => format!("a {name}"),
    }
}

/// What stands under `needs:`.
pub(super) fn listed(
    (file, declared): (&PipelineFile, &StageDeclaration),
    layers: &StageLayers,
    needs: Option<Value>,
    all: &Declared,
    found: &mut Needed,
    errors: &mut Gathered,
) {
    let list = match needs {
        None | Some(Value::Null) => return,
        Some(Value::String(one)) => vec![Value::String(one)],
        Some(Value::Array(list)) => list,
        Some(_) => {
            return errors.push(
                layers.error_at(&["needs".into()], "expected a stage's name or a list of names"),
            );
        }
    };
    for (index, item) in list.iter().enumerate() {
        let id = layers.stage.as_str();
        let index = index.to_string();
        let wrong = |message: String| {
            error_at(&file.source, &["stages", id, "needs", &index], Part::Value, message)
        };
        let Value::String(name) = item else {
            errors.push(wrong("expected a stage's name".into()));
            continue;
        };
        let key = vec!["needs".to_owned(), index.clone()];
        let full = declared.scope.and_then(|_| {
            let (short, values) = name.split_at(name.find('@').unwrap_or(name.len()));
            let exists = |name: &str| file.stage(name).is_some() || file.groups.contains_key(name);
            let scope = file.written_in(declared, "needs", short);
            Some(format!("{}{values}", file.full_name(scope, short, exists)?))
        });
        let name = full.as_ref().unwrap_or(name);
        if let Some(members) = all.matrices.get(name.as_str()) {
            found.needs.extend(members.iter().map(|m| (key.clone(), m.clone())));
        } else if let Some((target, _)) = all.kinds.get_key_value(name.as_str()) {
            found.needs.push((key, target.clone()));
        } else {
            let error = wrong(format!("no stage is called `{name}`"));
            errors.push(error.candidates(name, all.names_for(&layers.stage)));
        }
    }
}
