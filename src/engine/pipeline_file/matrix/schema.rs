//! What may stand under `matrix:`, for editors.

use serde_json::{Value, json};

/// The schema of a matrix. It refers to the definition `parameter`.
pub(crate) fn schema() -> Value {
    let list =
        json!({"type": "array", "minItems": 1, "items": {"type": "object", "minProperties": 1}});
    let values = json!({"type": "array", "minItems": 1});
    let count = json!({"type": "integer", "minimum": 1, "maximum": super::reading::MOST});
    let range = json!({"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}});
    let parameter = json!({"$ref": "#/$defs/parameter"});
    let or = |others: &[&Value]| json!({"anyOf": others});
    let draw = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
        "properties": {
            "uniform": {"description": "any number between the two", "anyOf": [range, parameter]},
            "log_uniform": {"description": "any number between the two, each power of ten as often",
                            "anyOf": [range, parameter]},
            "integers": {"description": "a whole number from the first to the last, both of them too",
                         "anyOf": [range, parameter]},
            "choice": {"description": "one of the values", "anyOf": [values, parameter]},
        },
    });
    let random = json!({
        "type": "object", "required": ["n"],
        "properties": {
            "n": {"description": "how many are drawn; more leave those that were there as they were",
                  "anyOf": [count, parameter, draw]},
            "seed": {"description": "what is drawn with; without it the pipeline's parameter `seed`",
                     "anyOf": [{"type": "integer", "minimum": 0}, parameter, draw]},
        },
        "additionalProperties": or(&[&draw, &parameter]),
    });
    json!({
        "description": "makes several stages: of each combination of values, such as `base@learning_rate=0.001`, \
                        or of each mapping of a list",
        "anyOf": [
            list,
            {
                "type": "object", "minProperties": 1,
                "properties": {
                    "random": {"description": "values drawn at random", "anyOf": [random, values, parameter]},
                    "seeds": {"description": "so many members of each, which differ in `seed`",
                              "anyOf": [count, values, parameter]},
                    "include": {"description": "values for combinations that they fit, and members besides",
                                "anyOf": [list, values, parameter]},
                    "exclude": {"description": "combinations that are left out", "anyOf": [list, values, parameter]},
                },
                "additionalProperties": or(&[&values, &parameter]),
            },
            parameter,
        ],
    })
}
