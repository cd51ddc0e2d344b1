//! Text of others reaches a terminal as text: no control character arrives, wherever it comes from.

use std::collections::BTreeMap;

use crate::project::{Project, TINY};
use crate::secrets::{response, server};

/// Sets a title, clears, colours, moves; a C1 control; a turn of the direction.
const EVIL: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[31mred\u{9b}5A\u{202e}txt\r";

/// As YAML and JSON write it.
fn quoted() -> String {
    let pieces = EVIL
        .chars()
        .map(|c| if c.is_ascii_graphic() { c.to_string() } else { format!("\\u{:04x}", c as u32) });
    format!("\"{}\"", pieces.collect::<String>())
}

#[track_caller]
fn clean(project: &Project, arguments: &[&str]) -> String {
    let ended = project.pipe(arguments);
    let said = ended.stdout() + &ended.stderr();
    let is_obeyed = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{202a}'..='\u{202e}')
    };
    let found: Vec<&str> = said.lines().filter(|line| line.contains(is_obeyed)).collect();
    assert!(found.is_empty(), "pipe {}: {found:?}", arguments.join(" "));
    said
}

/// A safetensors file with one tensor of nothing.
fn checkpoint(metadata: BTreeMap<String, String>, tensor: &str) -> Vec<u8> {
    let header = serde_json::json!({"__metadata__": metadata, tensor: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}});
    let text = header.to_string();
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn names_in_pipelines() {
    let project = Project::new();
    project.write("p.yaml", TINY.replace("name: tiny", &format!("name: {}", quoted())));
    for arguments in [
        &["run", "p.yaml"][..],
        &["runs"],
        &["runs", "--json"],
        &["status", "p.yaml"],
        &["plan", "p.yaml", "--json"],
    ] {
        clean(&project, arguments);
    }
    let project = Project::new();
    project.write("p.yaml", TINY.replace("  base:\n", &format!("  {}:\n", quoted())));
    clean(&project, &["check", "p.yaml"]);
    project.write(
        "p.yaml",
        TINY.replace("epochs: ${params.epochs}", &format!("epochs: {}", quoted())),
    );
    clean(&project, &["check", "p.yaml"]);
    project.write("p.yaml", TINY.replace("[circle, square]", &format!("[circle, {}]", quoted())));
    clean(&project, &["check", "p.yaml"]);
    clean(&project, &["plan", "p.yaml"]);
}

#[test]
fn headers_of_checkpoints() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    let real =
        std::fs::read(project.path("checkpoints/base_training/run_001/checkpoints/last.ckpt"))
            .unwrap();
    let length = u64::from_le_bytes(real[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&real[8..8 + length]).unwrap();
    let mut metadata: BTreeMap<String, String> =
        serde_json::from_value(header["__metadata__"].clone()).unwrap();
    metadata.insert("identity".into(), EVIL.into());
    metadata.insert("class_names".into(), serde_json::json!([EVIL]).to_string());
    metadata.insert(EVIL.into(), EVIL.into());
    project.write("evil.ckpt", checkpoint(metadata, EVIL));
    let mut foreign = BTreeMap::new();
    foreign.insert("format".to_owned(), EVIL.to_owned());
    project.write("foreign.ckpt", checkpoint(foreign, EVIL));
    project.write("torn.ckpt", [&20u64.to_le_bytes()[..], b"{\"a\x1b[31m\":1}         "].concat());
    for file in ["evil.ckpt", "foreign.ckpt", "torn.ckpt"] {
        for command in [
            &["ckpt", "show", file][..],
            &["ckpt", "verify", file],
            &["sample", file, "-o", "o.png"],
        ] {
            clean(&project, command);
        }
    }
    let said = clean(&project, &["ckpt", "show", "evil.ckpt"]);
    assert!(said.contains("\\u001b]0;owned\\u0007"), "what was written there can be seen: {said}");
}

#[test]
fn output_of_programs() {
    let project = Project::new();
    let run = "printf '\\\\033]0;owned\\\\007\\\\033[2J\\\\033[31mred\\\\033[0m \\\\302\\\\2335A\\\\n'; exit 3";
    project
        .write("p.yaml", format!("name: c\nstages:\n  c: {{ kind: command, run: \"{run}\" }}\n"));
    let said = clean(&project, &["run", "p.yaml"]);
    assert!(said.contains("\\u001b]0;owned\\u0007\\u001b[2Jred \\u009b5A"), "{said}");
    for arguments in [
        &["run", "p.yaml", "--log", "json"][..],
        &["run", "p.yaml", "--jobs", "2"],
        &["status", "p.yaml"],
        &["status", "p.yaml", "--json"],
        &["report", "p.yaml", "-o", "r.html"],
    ] {
        clean(&project, arguments);
    }
}

#[cfg(unix)]
#[test]
fn names_of_files() {
    let project = Project::new();
    let name = EVIL.replace('/', "");
    project.write(&format!("data/{name}/1.png"), "no image");
    project.write("data/b/1.png", "no image");
    project.write("p.yaml", "name: f\nstages:\n  data: { kind: dataset, source: image_folder, root: data, image_size: 8 }\n  base: { kind: train, dataset: data, epochs: 1, device: cpu }\n");
    for arguments in
        [&["run", "p.yaml"][..], &["plan", "p.yaml"], &["data", "p.yaml"], &["check", &name]]
    {
        clean(&project, arguments);
    }
}

#[test]
fn messages_of_servers() {
    let port = server(|_| {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>{EVIL}</Message></Error>"
        );
        response("403 Forbidden", body.as_bytes())
    });
    let project = Project::new()
        .environment("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .environment("AWS_ALLOW_HTTP", "true")
        .environment("AWS_ACCESS_KEY_ID", "AKIATEST")
        .environment("AWS_SECRET_ACCESS_KEY", "SECRETKEY")
        .environment("AWS_REGION", "us-east-1");
    let said = clean(&project, &["plan", "p.yaml", "--store", "s3://bucket/p"]);
    assert!(said.contains("failed to"), "{said}");
}
