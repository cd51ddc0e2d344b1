//! A thousand stages over two hundred nodes that fail, on a clock that is not real, and what that
//! does to `.pipe/`: `cargo bench -p burn-pipe-engine --bench scale -- 3` draws three of each
//! shape. docs/scale.md has the table.

#[path = "../tests/scale/cluster.rs"]
mod cluster;
#[path = "../tests/scale/drawn.rs"]
mod drawn;
#[path = "../tests/scale/simulation.rs"]
mod simulation;

use cluster::{CLUSTER, SECOND, Time};
use drawn::{Job, SHAPES, bounds, draw};
use pipe_fs::io_counters::IoCounters;
use simulation::{Ran, Simulation};

fn main() {
    let seeds = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(3);
    println!("makespan over the bound; hours; nodes: {}\n", CLUSTER.nodes);
    println!(
        "graph       seed  longest way  work/nodes  lost nodes  first run  over   known  over   real s"
    );
    for shape in SHAPES {
        for seed in 1..=seeds {
            let [first, second] = [1, 2].map(|failures| draw(shape, seed, seed + 1000 * failures));
            let simulation = Simulation::new(CLUSTER);
            let ran = simulation.run(&first, 1);
            simulation.remember(&ran.outcome);
            let again = simulation.run(&second, 2);
            let (path, work) = bounds(&first, CLUSTER.nodes);
            println!(
                "{:10}  {seed:4}  {:11.2}  {:10.2}  {:10}  {:9.2}  {:.3}  {:5.2}  {:.3}  {:6.1}",
                shape.name,
                hours(path),
                hours(work),
                ran.outcome.lost_nodes,
                hours(ran.outcome.makespan),
                over(&ran, &first),
                hours(again.outcome.makespan),
                over(&again, &second),
                ran.took.as_secs_f64(),
            );
        }
    }
    let jobs = draw(SHAPES[3], 1, 1001);
    let (checkpoints, failures): (u64, u64) =
        (jobs.iter().map(Job::checkpoints).sum(), jobs.iter().map(Job::failures).sum());
    println!(
        "\nwhat `random` 1 does in .pipe/: {checkpoints} checkpoints, {failures} failed attempts\n"
    );
    let one = Simulation::new(CLUSTER).run(&jobs, 1);
    let (each, took) = Simulation::new(CLUSTER).run_one_by_one(&jobs, 1);
    println!("                      one process  a stage   a process a stage  a stage");
    for ((what, one), (_, each)) in rows(&one.traffic).into_iter().zip(rows(&each)) {
        let a_stage = |n: u64| n as f64 / jobs.len() as f64;
        println!("{what:20}  {one:11}  {:7.1}   {each:17}  {:7.1}", a_stage(one), a_stage(each));
    }
    println!("real time: {:.1} s and {:.1} s", one.took.as_secs_f64(), took.as_secs_f64());
}

fn rows(t: &IoCounters) -> [(&'static str, u64); 11] {
    [
        ("files opened to write", t.opened),
        ("writes", t.writes),
        ("bytes written", t.bytes_written),
        ("fsyncs", t.synced),
        ("renames", t.renamed),
        ("links, removals", t.linked + t.removed),
        ("folders made", t.folders),
        ("locks asked for", t.locks),
        ("records looked for", t.reads),
        ("bytes read", t.bytes_read),
        ("folders listed", t.listed),
    ]
}

fn hours(time: Time) -> f64 {
    time as f64 / SECOND as f64 / 3600.0
}

fn over(ran: &Ran, jobs: &[Job]) -> f64 {
    let (path, work) = bounds(jobs, CLUSTER.nodes);
    ran.outcome.makespan as f64 / path.max(work) as f64
}
