//! Settings from outside the files, and numbers and words as people write them.

use serde_json::{Value, json};

use crate::fake::Project;

const BASE: &str = "\
name: demo
params: { epochs: 7, dataset: data, stage: one, Rate: 0.5, deep: { x: 1 } }
stages:
  data: { kind: source }
  my-base: { kind: work, dataset: '${params.dataset}', epochs: '${params.epochs}' }
  base: { kind: work, dataset: data, learning_rate: '${params.Rate}', ends: '${params.stage}', content: '${params.deep.x}.${params.stage}' }
";

fn warnings(project: &Project) -> Vec<String> {
    let graph = project.load().unwrap_or_else(|e| panic!("{e}"));
    graph.pipeline.warnings.iter().map(|w| w.to_string()).collect()
}

#[test]
fn a_variable_names_a_parameter_or_a_setting_in_any_case() {
    let with = |name: &str, value: &str, stage: &str| {
        Project::new(BASE).variable(name, value).settings(stage)
    };
    assert_eq!(with("PIPE_EPOCHS", "9", "my-base")["epochs"], 9);
    assert_eq!(with("PIPE_PARAMS__EPOCHS", "9", "my-base")["epochs"], 9);
    assert_eq!(with("PIPE_RATE", "0.25", "base")["learning_rate"], 0.25);
    assert_eq!(with("PIPE_DEEP__X", "5", "base")["content"], "5.one");
    assert_eq!(
        with("PIPE_MY_BASE__CHECKPOINT__KEEP_LAST_N", "9", "my-base")["checkpoint"]["keep_last_n"],
        9
    );
    assert_eq!(with("PIPE_BASE__EPOCHS", "9", "base")["epochs"], 9);
    assert_eq!(
        with("PIPE_LEARNING_RATE", "0.25", "my-base")["learning_rate"],
        0.25,
        "a key that some stages know"
    );
}

#[test]
fn variables_of_the_program_itself_are_no_parameters() {
    for name in ["PIPE_STAGE", "PIPE_LOG", "PIPE_COMMIT", "PIPE_TEST_STAGE"] {
        let project = Project::new(BASE).variable(name, "other");
        assert_eq!(project.settings("base")["ends"], "one", "{name}");
        assert_eq!(warnings(&project), warnings(&Project::new(BASE)));
    }
    let project = Project::new(BASE).variable("PIPE_PARAMS__STAGE", "other");
    assert_eq!(project.settings("base")["ends"], "other", "this one is meant");
}

#[test]
fn a_variable_that_may_have_been_meant_is_named_without_its_value() {
    let said = |name: &str| {
        let project = Project::new(BASE).variable(name, "hunter2");
        let without = warnings(&Project::new(BASE));
        let new: Vec<String> =
            warnings(&project).into_iter().filter(|w| !without.contains(w)).collect();
        assert!(!new.join("").contains("hunter2"), "{new:?}");
        new.join("\n")
    };
    assert_eq!(
        said("PIPE_EPOCS"),
        "PIPE_EPOCS: no parameter, stage or setting is called `epocs`; ignored\n  = did you mean `PIPE_EPOCHS`?"
    );
    assert!(said("PIPE_BASE__EPOCS").starts_with("PIPE_BASE__EPOCS: no parameter"));
    for foreign in
        ["PIPE_TOKEN", "PIPE_", "PIPE_A____B", "PIPE_OTHER__EPOCHS", "PIPE_X", "PIPE_SECRET_KEY"]
    {
        assert_eq!(said(foreign), "", "{foreign}");
    }
}

/// A generator of numbers, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn word(&mut self, letters: &str, length: u64) -> String {
        let letters: Vec<char> = letters.chars().collect();
        (0..=self.below(length))
            .map(|_| letters[self.below(letters.len() as u64) as usize])
            .collect()
    }
}

#[test]
fn foreign_variables_change_nothing_whatever_they_are_called_and_hold() {
    let plain = Project::new(BASE);
    let (settings, said) =
        (["data", "my-base", "base"].map(|s| plain.settings(s)), warnings(&plain));
    let mut random = Random(7);
    for _ in 0..400 {
        // No word of ours has a digit or a `Q` in it.
        let name =
            format!("PIPE_{}Q{}", random.word("ABCXYZ_019", 9), random.word("ABCXYZ_019", 9));
        let value = random.word("ab: [{\"'&*!|>%@`#\n\té\u{1}", 20) + "hunter2";
        let project = Project::new(BASE).variable(&name, &value);
        assert_eq!(
            ["data", "my-base", "base"].map(|s| project.settings(s)),
            settings,
            "{name}={value:?}"
        );
        let new: Vec<String> =
            warnings(&project).into_iter().filter(|w| !said.contains(w)).collect();
        assert!(!new.join("").contains("hunter2"), "{new:?}");
        assert!(new.iter().all(|w| w.starts_with(&name)), "{new:?}");
    }
}

#[test]
fn an_error_about_a_variable_s_value_names_the_variable_and_not_the_value() {
    let with = |name: &str, value: &str| Project::new(BASE).variable(name, value).error();
    let hint = |name: &str| {
        format!(
            "  = {name} names a setting of this pipeline and counts as one; unset it if another program is meant"
        )
    };
    assert_eq!(
        with("PIPE_BASE__EPOCHS", "hunter2"),
        format!(
            "PIPE_BASE__EPOCHS: expected a whole number, 0 or more, found text \"…\"\n  = setting: base.epochs\n{}",
            hint("PIPE_BASE__EPOCHS")
        )
    );
    assert_eq!(
        with("PIPE_EPOCHS", "hunter2"),
        format!(
            "p.yaml:5:64: stages.my-base.epochs: expected a whole number, 0 or more, found text \"…\"\n  |\n\
             5 | ...params.dataset}}', epochs: '${{params.epochs}}' }}\n  |{}^^^^^^^^^^^^^^^^^^\n\
             \x20 = the value comes from PIPE_EPOCHS\n{}",
            " ".repeat(30),
            hint("PIPE_EPOCHS")
        )
    );
    for (name, value) in [
        ("PIPE_EPOCHS", "a: hunter2: c"),
        ("PIPE_DATASET", "hunter2"),
        ("PIPE_BASE__DATASET", "hunter2"),
        ("PIPE_BASE__CHECKPOINT", "{hunter2: 1}"),
        ("PIPE_BASE__CHECKPOINT", "hunter2"),
        ("PIPE_BASE__CHECKPOINT__MODE", "hunter2"),
        ("PIPE_BASE__CLASSES", "hunter2"),
        ("PIPE_BASE__TIMEOUT", "hunter2"),
        ("PIPE_BASE__NEEDS", "[hunter2]"),
        ("PIPE_BASE__CONFIG", "hunter2.yaml"),
        ("PIPE_BASE__ENDS", "'${params.hunter2}'"),
        ("PIPE_BASE__MATRIX", "hunter2"),
        ("PIPE_STORE", "hunter2"),
        ("PIPE_STORE", "s3://key:hunter2@bucket"),
        ("PIPE_EXECUTOR", "hunter2"),
        ("PIPE_EXECUTOR__TIME", "hunter2"),
    ] {
        let error = with(name, value);
        assert!(error.contains(name), "{name}={value}: {error}");
        assert!(!error.contains("hunter2"), "{name}={value}: {error}");
    }
    let error = Project::new(BASE).set("epochs=many").error();
    assert!(error.contains("the value comes from --set epochs=many"), "{error}");
}

const SWEEP: &str = "\
name: sweep
params: { rates: [0.1, 0.01] }
stages:
  data: { kind: source }
  base: { kind: work, dataset: data, matrix: { learning_rate: '${params.rates}', checkpoint.keep_last_n: [1, 2] } }
  other: { kind: work, dataset: data }
";

#[test]
fn a_setting_against_a_matrix_over_it_is_refused_with_what_to_type() {
    let error = Project::new(SWEEP).set("learning_rate=0.5").error();
    assert_eq!(
        error,
        "--set learning_rate=0.5: stage `base` has a matrix over `learning_rate`, which decides it\n  \
         = for other values in the matrix: --set 'base.matrix.learning_rate=[0.5]'\n  \
         = for the other stages alone: --set data.learning_rate=0.5"
    );
    let error = Project::new(SWEEP).set("base.learning_rate=1e-1").error();
    assert!(
        error.contains("name that one: `base@checkpoint.keep_last_n=1,learning_rate=0.1`"),
        "{error}"
    );
    let error = Project::new(SWEEP).set("base.checkpoint={keep_last_n: 5}").error();
    assert!(error.contains("a matrix over `checkpoint.keep_last_n`"), "{error}");
    let error = Project::new(SWEEP).variable("PIPE_LEARNING_RATE", "0.5").error();
    assert!(
        error.starts_with("PIPE_LEARNING_RATE: stage `base` has a matrix")
            && !error.contains("0.5"),
        "{error}"
    );
    assert!(
        Project::new(SWEEP).set("base.checkpoint={mode: max}").load().is_ok(),
        "beside it is no matter"
    );
    assert!(Project::new(SWEEP).set("base.epochs=3").load().is_ok());
}

#[test]
fn a_matrix_is_set_from_outside() {
    let rates = |project: Project| {
        let graph = project.load().unwrap_or_else(|e| panic!("{e}"));
        let mut rates: Vec<Value> = graph
            .stages()
            .filter(|s| s.id.declared() == "base")
            .map(|s| s.stage.settings()["learning_rate"].clone())
            .collect();
        rates.sort_by(|a, b| a.as_f64().partial_cmp(&b.as_f64()).unwrap());
        rates.dedup();
        rates
    };
    assert_eq!(
        rates(Project::new(SWEEP).set("base.matrix.learning_rate=[0.5, 0.6, 0.7]")),
        [0.5, 0.6, 0.7]
    );
    assert_eq!(rates(Project::new(SWEEP).set("rates=[0.5]")), [0.5]);
    assert_eq!(
        rates(Project::new(SWEEP).variable("PIPE_BASE__MATRIX__LEARNING_RATE", "[0.5]")),
        [0.5]
    );
    assert_eq!(
        rates(Project::new(SWEEP).set("base.matrix=null").set("base.learning_rate=0.5")),
        [0.5]
    );
    let stages = |project: Project| project.load().unwrap().stages().count();
    assert_eq!(stages(Project::new(SWEEP).set("base.matrix.checkpoint.keep_last_n=[1]")), 4);
    assert_eq!(stages(Project::new(SWEEP).set("other.matrix.epochs=[1, 2]")), 7);
    let error = Project::new(SWEEP).set("base.matrix.learning_rate=0.5").error();
    assert!(error.contains("expected a list of values\n  = the value comes from --set"), "{error}");
}

#[test]
fn the_config_and_the_needs_of_a_stage_are_set_from_outside() {
    let project = Project::new(BASE).file("c.yaml", "epochs: 3\n").set("base.config=c.yaml");
    assert_eq!(project.settings("base")["epochs"], 3);
    let graph = Project::new(BASE).set("data.needs=[my-base]").load();
    assert!(graph.err().unwrap().to_string().contains("in a circle"));
}

#[test]
fn a_stage_may_be_called_as_a_parameter_is() {
    let text = BASE
        .replace("  data: {", "  dataset: {")
        .replace("dataset: data,", "dataset: dataset,")
        .replace("dataset: data }", "dataset: dataset }")
        .replace("params: { epochs: 7, dataset: data,", "params: { epochs: 7, dataset: dataset,");
    let project = Project::new(&text).set("dataset=base").set("dataset.epochs=3");
    assert_eq!(project.settings("my-base")["dataset"], "base");
    assert_eq!(project.settings("dataset")["epochs"], 3);
    assert_eq!(
        project.settings("base")["dataset"],
        "dataset",
        "the key of that name is another thing"
    );
}

#[test]
fn parameters_refer_to_parameters() {
    let text = "\
name: x
params: { a: 'runs/${params.b}', b: '${params.c.d}', c: { d: 3, e: '$${params.b} ${HOME} $${HOME}' } }
stages:
  one: { kind: work, epochs: '${params.b}', content: '${params.a}/x', ends: '${params.c.e}' }
";
    assert_eq!(warnings(&Project::new(text)), [""; 0], "what a parameter refers to is used");
    let settings = Project::new(text).settings("one");
    assert_eq!(settings["epochs"], 3, "with its type");
    assert_eq!(settings["content"], "runs/3/x");
    assert_eq!(
        settings["ends"], "${params.b} ${HOME} $${HOME}",
        "what a shell reads is left alone"
    );
    assert_eq!(Project::new(text).set("b=7").settings("one")["content"], "runs/7/x");
    assert_eq!(
        Project::new(text).set("one.content='${params.a}/y'").settings("one")["content"],
        "runs/3/y"
    );

    let circle = "name: x\nparams: { a: '${params.b}', b: '${params.a}' }\nstages: { one: { kind: work } }\n";
    let error = Project::new(circle).error();
    assert!(
        error.starts_with(
            "p.yaml:2:14: params.a: parameters refer to each other in a circle: a -> b -> a"
        ),
        "{error}"
    );
    assert_eq!(error.matches("circle").count(), 1);
    let unknown = "name: x\nparams: { a: '${params.bb}', b: 1 }\nstages: { one: { kind: work } }\n";
    let error = Project::new(unknown).error();
    assert!(
        error.starts_with("p.yaml:2:14: params.a: no parameter `bb` under `params:`"),
        "{error}"
    );
    let matrix = "name: x\nparams: { a: '${matrix.seed}' }\nstages: { one: { kind: work } }\n";
    assert!(Project::new(matrix).error().contains("belongs into the stage"));
}

#[test]
fn a_name_with_a_parameter_is_refused() {
    let error = Project::new(
        "name: t_${params.x}\nparams: { x: 1 }\nstages: { one: { kind: work, epochs: '${params.x}' } }\n",
    )
    .error();
    assert!(error.starts_with("p.yaml:1:7: name: no parameter is filled in here"), "{error}");
}

#[test]
fn what_a_shell_reads_is_told_how_to_write() {
    let error =
        Project::new("name: x\nstages: { one: { kind: command, run: 'echo ${HOME}' } }\n").error();
    assert!(
        error.contains("= write `$${HOME}` for a plain `${HOME}`, as a shell reads it"),
        "{error}"
    );
}

#[test]
fn a_whole_number_may_be_written_with_a_point_or_a_power() {
    let epochs = |text: &str| {
        Project::new("name: x\nstages: { one: { kind: work } }\n").set(text).settings("one")
    };
    for text in ["5.0", "5", "0.5e1", "50e-1"] {
        assert_eq!(epochs(&format!("one.epochs={text}"))["epochs"], json!(5), "{text}");
    }
    assert_eq!(epochs("one.epochs=1e2")["epochs"], json!(100));
    assert_eq!(epochs("one.checkpoint={keep_last_n: 4.0}")["checkpoint"]["keep_last_n"], json!(4));
    let text = "name: x\nexecutor: { kind: slurm, cpus: 2.0 }\nstages: { one: { kind: work, epochs: 1e1, retry: { max: 2.0 } } }\n";
    assert_eq!(Project::new(text).settings("one")["epochs"], json!(10));
    let graph = Project::new(text).load().unwrap();
    assert_eq!(graph.stages().next().unwrap().options.retry.max, 2);
    let matrix = "name: x\nstages: { one: { kind: work, matrix: { epochs: [1e1] } } }\n";
    assert_eq!(
        Project::new(matrix).settings("one@epochs=10.0")["epochs"],
        json!(10),
        "its name is as it was"
    );
    for (text, found) in [
        ("5.5", "the number 5.5"),
        ("-1.0", "the number -1"),
        ("1e30", "the number 1000000000000000000000000000000"),
    ] {
        let error = Project::new("name: x\nstages: { one: { kind: work } }\n")
            .set(&format!("one.epochs={text}"))
            .error();
        assert!(error.contains("expected a whole number") && error.contains(found), "{error}");
    }
}

#[test]
fn numbers_that_are_too_large_are_told_in_words() {
    let error =
        Project::new("name: x\nstages:\n  one: { kind: work, epochs: 18446744073709551616 }\n")
            .error();
    assert!(
        error.starts_with("p.yaml:3:30: stages.one.epochs: expected a whole number up to 18446744073709551615, found the number"),
        "{error}"
    );
    let error =
        Project::new("name: x\nstages:\n  one: { kind: work, retry: { max: 4294967296 } }\n")
            .error();
    assert!(
        error.contains("stages.one.retry.max: expected a whole number up to 4294967295, found"),
        "{error}"
    );
}

#[test]
fn a_mark_before_the_text_is_no_part_of_it() {
    let project = Project::new(&format!("\u{feff}{BASE}"))
        .file("c.yaml", "\u{feff}training: { epochs: 3 }\n");
    assert_eq!(project.set("base.config=c.yaml").settings("base")["epochs"], 3);
    let error =
        Project::new("\u{feff}name: x\nstages: { one: { kind: work, epocs: 3 } }\n").error();
    assert!(error.starts_with("p.yaml:2:30: stages.one.epocs"), "{error}");
    let wide = Project::new("");
    let text: Vec<u8> = [0xff, 0xfe].into_iter().chain(BASE.bytes().flat_map(|b| [b, 0])).collect();
    std::fs::write(wide.folder.path().join("p.yaml"), text).unwrap();
    assert!(wide.error().contains("it is UTF-16: save it as UTF-8"));
}

#[test]
fn a_file_that_is_no_pipeline_is_not_repeated() {
    let secret = "root:x:0:0:hunter2:/root:/bin/sh\ndaemon:x:1:1:hunter2:/:/bin/false\n";
    for (name, text) in [
        ("passwd", secret),
        ("keys", "hunter2: [a\n b: hunter2 hunter2"),
        ("notes.txt", "a: hunter2\n"),
    ] {
        let project = Project::new("name: x\nstages: { one: { kind: work } }\n").file(name, text);
        let error = project.set(&format!("one.config={name}")).error();
        let lines: Vec<&str> = error.lines().filter(|line| line.contains("hunter2")).collect();
        assert!(lines.is_empty(), "{error}");
    }
}
