//! Every error names its place.

use super::{marks, project, refused};

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    let cases = [
        ("[]", "[]", "stages.base.matrix: expected at least one mapping"),
        ("{}", "{}", "stages.base.matrix: expected at least one key with a list of values"),
        ("5", "5", "stages.base.matrix: expected a mapping (`key: value` lines), found number 5"),
        (
            "[{ rate: 1 }, 5]",
            "5]",
            "stages.base.matrix.1: expected a mapping (`key: value` lines), found number 5",
        ),
        (
            "[{ rate: 1 }, {}]",
            "{}]",
            "stages.base.matrix.1: expected at least one key with a value",
        ),
        (
            "[{ rate: 1 }, { rate: ~ }]",
            "~",
            "stages.base.matrix.1.rate: expected a value, found nothing",
        ),
        (
            "[{ rate: 1 }, { rate: 1 }]",
            "[{",
            "stages.base.matrix: `base@rate=1` comes out more than once",
        ),
        (
            "[{ rate: 1 }, { rate: many }]",
            "many",
            "stages.base.matrix.1.rate: expected a number, found text \"many\"",
        ),
        (
            "[{ rate: 1 }, { rat: 1 }]",
            "rat:",
            "stages.base.matrix.1.rat: neither a setting of the stage nor used in it",
        ),
        ("{ optimizer: [{ nam: 1 }] }", "nam:", "stages.base.matrix.optimizer.0.nam: unknown key"),
        (
            "{ rate: [1], include: [{ seed: x }] }",
            "x }",
            "stages.base.matrix.include.0.seed: expected a whole number, 0 or more, found text \"x\"",
        ),
        (
            "{ rate: [1], include: 5 }",
            "5 }",
            "stages.base.matrix.include: expected a list of mappings",
        ),
    ];
    for (matrix, marked, said) in cases {
        marks(matrix, marked, said);
    }
}

#[test]
fn what_is_wrong_in_random_is_told_where_it_stands() {
    let cases = [
        (
            "{ random: 5 }",
            "5 }",
            "stages.base.matrix.random: expected a mapping (`key: value` lines), found number 5",
        ),
        (
            "{ random: { n: 5 } }",
            "{ n: 5",
            "stages.base.matrix.random: expected at least one key to draw",
        ),
        (
            "{ random: { rate: { uniform: [0, 1] } } }",
            "random",
            "stages.base.matrix.random: missing key `n`",
        ),
        (
            "{ random: { rate: { unifrm: [0, 1] }, n: 1 } }",
            "unifrm",
            "stages.base.matrix.random.rate.unifrm: unknown way to draw",
        ),
        (
            "{ random: { rate: { uniform: [1, 0] }, n: 1 } }",
            "[1, 0]",
            "stages.base.matrix.random.rate.uniform: expected two numbers, the lower one first",
        ),
        (
            "{ random: { rate: { log_uniform: [0, 1] }, n: 1 } }",
            "[0, 1]",
            "stages.base.matrix.random.rate.log_uniform: expected two numbers above 0, of which there are logarithms",
        ),
        (
            "{ random: { rate: [1, 2], n: 1 } }",
            "[1, 2]",
            "stages.base.matrix.random.rate: expected one of uniform, log_uniform, integers, choice, with its values",
        ),
        (
            "{ random: { seed: { integers: [1, 1.5] }, n: 1 } }",
            "[1, 1.5]",
            "stages.base.matrix.random.seed.integers: expected two whole numbers, the lower one first",
        ),
        (
            "{ random: { optimizer: { choice: [{ nam: 1 }] }, n: 1 } }",
            "nam:",
            "stages.base.matrix.random.optimizer.choice.0.nam: unknown key",
        ),
        (
            "{ random: { n: 0, rate: { uniform: [0, 1] } } }",
            "0,",
            "stages.base.matrix.random.n: expected a whole number between 1 and 100000: how many",
        ),
    ];
    for (matrix, marked, said) in cases {
        marks(matrix, marked, said);
    }
}

#[test]
fn a_setting_against_any_matrix_over_it_is_refused() {
    for (matrix, note) in [
        ("[{ rate: 0.5 }, { rate: 2 }]", "change what stands under `stages.base.matrix`"),
        ("{ random: { rate: { uniform: [0, 1] }, n: 2 } }", "change what stands under"),
        ("{ seed: [1], include: [{ rate: 1 }] }", "change what stands under"),
    ] {
        let error = refused(project(matrix).set("rate=0.5"));
        let said = "--set rate=0.5: stage `base` has a matrix over `rate`, which decides it";
        assert!(error.starts_with(said) && error.contains(note), "{error}");
    }
    let error = refused(project("[{ rate: 0.5 }, { rate: 2 }]").set("rate=5e-1"));
    assert!(error.contains("for one stage of it name that one: `base@rate=0.5`"), "{error}");
    let error = refused(project("[{ rate: 1 }]").set("base.matrix.seed=[1, 2]"));
    assert!(error.contains("the matrix of stage `base` is a list"), "{error}");
}
