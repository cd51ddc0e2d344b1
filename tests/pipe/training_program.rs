//! A training program of the tests: what a user's program would be, in the binary of the tests
//! itself. It does what `settings.script` lists, or else trains: its state is a chain of digests, so
//! that the last bytes tell whether every step was done once and in its order.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What the stage told.
fn job() -> Option<Value> {
    let file = std::env::var_os("PIPE_JOB")?;
    Some(serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap())
}

struct Link {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Link {
    fn open(job: &Value) -> Self {
        let writer = UnixStream::connect(job["socket"].as_str().unwrap()).unwrap();
        Self { reader: BufReader::new(writer.try_clone().unwrap()), writer }
    }

    fn raw(&mut self, line: &str) -> Value {
        if self.writer.write_all(format!("{line}\n").as_bytes()).is_err() {
            return Value::Null;
        }
        let mut reply = String::new();
        let _ = self.reader.read_line(&mut reply);
        serde_json::from_str(&reply).unwrap_or_default()
    }

    /// Says one thing; one that was refused ends the program.
    fn say(&mut self, message: Value) -> Value {
        let reply = self.raw(&message.to_string());
        if reply["ok"] != true {
            eprintln!("refused: {reply}");
            std::process::exit(3);
        }
        reply
    }
}

/// The program, if this process was started as one.
pub fn run() {
    let Some(job) = job() else { return };
    // It listens for `stop`.
    let told = std::sync::Arc::default();
    signal_hook::flag::register(signal_hook::consts::SIGTERM, told).unwrap();
    let scratch = PathBuf::from(job["scratch"].as_str().unwrap());
    let mut link = Link::open(&job);
    if let Some(script) = job["settings"]["script"].as_array() {
        script.iter().for_each(|item| act(item, &scratch, &mut link));
    } else {
        train(&job, &scratch, &mut link);
    }
    std::process::exit(0);
}

fn act(item: &Value, scratch: &Path, link: &mut Link) {
    match item {
        Value::String(line) => println!("reply {}", link.raw(line)),
        item if item["write"].is_string() => {
            let path = scratch.join(item["write"].as_str().unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, item["text"].as_str().unwrap_or("x")).unwrap();
        }
        item if item["abort"] == true => std::process::abort(),
        item if item["exit"].is_i64() => std::process::exit(item["exit"].as_i64().unwrap() as i32),
        item if item["sleep"].is_number() => {
            std::thread::sleep(Duration::from_secs_f64(item["sleep"].as_f64().unwrap()));
        }
        item if item["flood"].is_u64() => {
            for step in 1..=item["flood"].as_u64().unwrap() {
                link.raw(&json!({"step": step, "metrics": {"loss": 0.5}}).to_string());
            }
        }
        item if item["fork"].is_string() => {
            let line = format!("{} &", item["fork"].as_str().unwrap());
            std::process::Command::new("sh").args(["-c", &line]).status().unwrap();
        }
        other => panic!("no such thing to do: {other}"),
    }
}

fn train(job: &Value, scratch: &Path, link: &mut Link) {
    let number = |key: &str| job[key].as_u64().unwrap();
    let settings = &job["settings"];
    let steps = settings["steps"].as_u64().unwrap_or(4);
    let pause = Duration::from_micros(settings["pause_us"].as_u64().unwrap_or(0));
    let is_folder = settings["folder"] == true;
    let rate = settings["rate"].as_f64().unwrap_or(0.1);
    let mut state = match job["start"].as_str().or(job["init"].as_str()) {
        Some(start) => std::fs::read_to_string(inner(Path::new(start))).unwrap(),
        None => format!("begin {} {rate}", number("seed")),
    };
    let mut step = number("step");
    for epoch in number("done") + 1..=number("target") {
        let first = if epoch == number("done") + 1 { number("step_in_epoch") } else { 0 };
        for within in first + 1..=steps {
            let text = format!("{state} {epoch} {within}");
            state = Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect();
            std::thread::sleep(pause);
            step += 1;
            let loss = 1.0 / step as f64;
            let said = json!({"step": step, "steps": steps, "step_in_epoch": within,
                              "epoch": epoch, "metrics": {"loss": loss}});
            let reply = link.say(said);
            if reply["sample"] == true {
                let path = scratch.join("grid.png");
                image::RgbImage::new(2, 2).save(&path).unwrap();
                link.say(json!({"sample": path, "epoch": epoch}));
            }
            if reply["save"] == true && within < steps {
                let path = write(scratch, &state, is_folder);
                link.say(json!({"checkpoint": path, "epoch": epoch - 1, "step": step,
                                "step_in_epoch": within}));
            }
            if reply["stop"] == true && within < steps {
                return;
            }
        }
        let loss = (rate - 0.1).abs() + 1.0 / epoch as f64;
        let mut metrics = json!({"train_loss": loss, "accuracy": 1.0 - loss / 10.0});
        if settings["sparse"] == true && epoch % 2 == 0 {
            metrics.as_object_mut().unwrap().remove("train_loss");
        }
        let reply = link.say(json!({"epoch": epoch, "step": step, "metrics": metrics}));
        if reply["save"] == true {
            let path = write(scratch, &state, is_folder);
            link.say(json!({"checkpoint": path, "epoch": epoch, "step": step}));
        }
        if reply["stop"] == true {
            return;
        }
        if settings["enough_at"].as_u64() == Some(epoch) {
            link.say(json!({"finished": "good enough"}));
            return;
        }
    }
}

/// Where the state stands in a checkpoint.
pub fn inner(checkpoint: &Path) -> PathBuf {
    if checkpoint.is_dir() { checkpoint.join("state/chain") } else { checkpoint.to_owned() }
}

fn write(scratch: &Path, state: &str, is_folder: bool) -> PathBuf {
    let path = scratch.join("now");
    if is_folder {
        std::fs::create_dir_all(path.join("state")).unwrap();
        std::fs::write(path.join("note.txt"), "a second file").unwrap();
        std::fs::write(path.join("state/chain"), state).unwrap();
    } else {
        std::fs::write(&path, state).unwrap();
    }
    path
}
