//! Two sessions in one process: each has its own listener, and asks as much of the disk as its
//! pipeline says.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pipe_core::progress::NullListener;
use pipe_core::stop::Stop;
use pipe_engine::exec::LocalExecutor;
use pipe_engine::session::Session;
use pipe_fs::watch::{FileEvent, Listener};
use pipe_fs::{Disk, ProjectRoot};

use crate::fake::{Project, kinds};

#[derive(Default)]
struct Heard(Mutex<Vec<PathBuf>>);

impl Listener for Heard {
    fn hear(&self, news: FileEvent) {
        let (FileEvent::Written(path) | FileEvent::Grows(path) | FileEvent::Removed(path)) = news;
        self.0.lock().unwrap().push(path.to_owned());
    }
}

/// Runs the pipeline of a project; says what was heard of its files, and how many syncs it took.
fn run(project: &Project) -> (Vec<PathBuf>, u64) {
    let heard = Arc::new(Heard::default());
    let root =
        ProjectRoot::new(project.folder.path(), Disk::default().with_listener(heard.clone()));
    let session = Session::load(root, Path::new("p.yaml"), &kinds(), &[]).unwrap();
    let stop = Stop::default();
    let execution = session.execution(&stop, &NullListener);
    let (plan, inspected) = session.plan(&execution).map_err(|(_, error)| error).unwrap();
    let summary = session.run(&LocalExecutor, &execution, &plan, inspected).unwrap();
    assert_eq!(summary.finished.len(), 3);
    let synced = session.root.disk().io_counters().synced;
    (heard.0.lock().unwrap().clone(), synced)
}

#[test]
fn two_sessions_of_a_process_hear_and_sync_each_for_itself() {
    let stages = "
stages:
  data: { kind: source }
  base: { kind: work, dataset: data }
  next: { kind: work, dataset: base }
";
    let durable = Project::new(&format!("name: durable{stages}"));
    let fast = Project::new(&format!("name: fast\nfsync: off{stages}"));
    let (durable_ran, fast_ran) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(&fast));
        (run(&durable), other.join().unwrap())
    });
    for (project, (heard, _)) in [(&durable, &durable_ran), (&fast, &fast_ran)] {
        let records = heard.iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
        assert!(records.count() >= 3, "{heard:?}");
        assert!(heard.iter().all(|path| path.starts_with(project.folder.path())), "{heard:?}");
    }
    assert!(durable_ran.1 > 0);
    assert_eq!(fast_ran.1, 0);
}
