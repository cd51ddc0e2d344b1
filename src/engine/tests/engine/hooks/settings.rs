//! What people write under `on:`, and where.

use super::{lines, run};
use crate::fake::Project;

#[test]
fn hooks_come_from_every_layer() {
    let file = "name: chain
params: { where: https://host/a }
on: { end: '${params.where}' }
stages:
  base: { kind: work, config: c.yaml, on: { end: 'echo file >> end' }, matrix: { epochs: [1, 2] } }
";
    let config = "epochs: 3\non: { end: 'echo config >> end', failure: 'true' }\n";
    let ends = |project: Project| {
        let project = project.file("c.yaml", config);
        let ran = run(&project);
        (lines(&project, "end"), ran.posted.into_iter().map(|(url, _)| url).collect::<Vec<_>>())
    };
    let twice = |word: &str| vec![word.to_owned(); 2];
    let to = |url: &str| vec![url.to_owned()];
    let new = || Project::new(file);
    assert_eq!(ends(new()), (twice("file"), to("https://host/a")));
    let set = new().set("base.on.end=echo set $PIPE_STAGE >> end").set("on.end=https://host/b");
    let (mut own, all) = ends(set);
    own.sort();
    assert_eq!(own, ["set base@epochs=1", "set base@epochs=2"]);
    assert_eq!(all, to("https://host/b"));
    assert_eq!(ends(new().set("base.on.end=null").set("on.end=[]")), (vec![], vec![]));
    let variables = new()
        .variable("PIPE_ON__END", "https://host/v")
        .variable("PIPE_BASE__ON__END", "echo v >> end");
    assert_eq!(ends(variables), (twice("v"), to("https://host/v")));
    let matrix = "name: chain\nstages:\n  base: { kind: work, on: { end: 'echo ${matrix.epochs} >> end' }, matrix: { epochs: [1, 2] } }\n";
    assert_eq!(ends(Project::new(matrix)).0, ["1", "2"]);
}

#[test]
fn what_is_wrong_is_told_before_anything_runs() {
    for (on, said) in [
        ("{newbest: x}", "did you mean `new_best`?"),
        ("{end: ftp://host/x}", "expected an address that begins with `https://` or `http://`"),
        ("{end: {url: 'https://'}}", "the address names no host"),
        ("{end: 'https://user:hunter2hunter@h:99999999/'}", "a port that is no number"),
        ("{end: 'https://h/a b'}", "without spaces"),
        ("{end: [{run: x}, {url: nonsense}]}", "expected an address that begins with"),
        ("{end: {run: x, url: 'https://h'}}", "either `run` or `url`"),
        ("{end: {timeout: 5s}}", "expected `run` (a command) or `url` (an address)"),
        ("{end: {run: x, timeout: soon}}", "expected a time such as"),
        ("{end: {run: x, timeout: 0s}}", "longer than nothing"),
        ("{end: {rum: x}}", "did you mean `run`?"),
        ("{end: ''}", "expected a program"),
        ("{end: ['echo a', 'echo b']}", "write several hooks as `[{run: …}, {url: …}]`"),
        ("{end: ['https://a/b', 'https://c/d']}", "write several hooks as"),
        ("{end: [[], x]}", "expected a program"),
        ("{end: 7}", "expected a command, an address, a mapping"),
        ("always", "expected a mapping"),
    ] {
        for file in [
            format!("name: p\non: {on}\nstages:\n  base: {{ kind: work }}\n"),
            format!("name: p\nstages:\n  base: {{ kind: work, on: {on} }}\n"),
        ] {
            let error = Project::new(&file).error();
            let masked = pipe_core::secret::mask(&error);
            assert!(error.contains(said) && error.contains("p.yaml:"), "{on}: {error}");
            assert!(!masked.contains("hunter2"), "{masked}");
        }
    }
}
