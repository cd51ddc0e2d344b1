//! What people do with the page, in a Chromium: with a sweep of fifty, with a hundred runs, on a
//! narrow screen, and while it trains.

use std::process::Command;
use std::time::Instant;

use crate::browser::Browser;
use crate::project::{Project, TINY};
use crate::report::{address, browser};
use crate::ui::Served;

/// A sweep over so many learning rates, trained for two epochs of one step.
fn sweep(members: usize) -> Project {
    let rates: Vec<String> = (1..=members).map(|n| format!("{n}.0e-4")).collect();
    let project = Project::with(
        "    dataset: data\n",
        &format!(
            "    dataset: data\n    matrix: {{ learning_rate: [{}] }}\n    \
             sample_every_n_epochs: 1\n",
            rates.join(", ")
        ),
    );
    let text = project.read("p.yaml").replace("num_images: 64", "num_images: 16");
    project.write("p.yaml", text);
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.pipe(&["report", "p.yaml"]).succeeds();
    project
}

/// Opens every part of the page that can be opened.
fn open_all(page: &mut Browser) {
    page.value("document.querySelectorAll('main .node').forEach((x) => x.dispatchEvent(new MouseEvent('click', { bubbles: true })))");
    for _ in 0..2 {
        page.value(
            "document.querySelectorAll('details').forEach((x, i) => { if (i < 40) x.open = true; })",
        );
        page.value("new Promise((done) => setTimeout(done, 200))");
    }
}

#[test]
fn a_sweep_of_fifty_and_a_hundred_runs_are_readable() {
    if browser().is_none() {
        return;
    }
    let project = sweep(50);
    let mut page = Browser::open(&project, &address(&project, "report.html"), 1280).unwrap();
    // The members are one node, which says how many stand how.
    let nodes = page.texts(".node");
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert!(nodes[1].contains("train × 50") && nodes[1].contains("50 done"), "{nodes:?}");
    let names = page.texts("#runs-table tbody th");
    assert_eq!(names.len(), 50);
    assert_eq!(names[6], "007 · learning_rate=7e-4");
    assert_eq!(page.texts("#charts figure[data-metric=train_loss] .curve").len(), 50);
    for width in [1280, 390] {
        page.resize(width);
        page.until(
            "document.querySelector('#charts svg').getBoundingClientRect().right <= innerWidth",
        );
        assert_eq!(page.sideways(), [""; 0], "{width} px");
        open_all(&mut page);
        assert_eq!(page.sideways(), [""; 0], "{width} px, all open");
        assert_eq!(page.nameless(), [""; 0], "{width} px");
        assert_eq!(page.axe(), [""; 0], "{width} px");
    }
    page.close();

    let folder = project.path("checkpoints/base_training");
    for number in 51..=100 {
        let [from, to] = [number - 50, number].map(|n| folder.join(format!("run_{n:03}")));
        assert!(Command::new("cp").arg("-r").args([from, to]).status().unwrap().success());
    }
    project.pipe(&["report"]).succeeds();
    let started = Instant::now();
    let mut page = Browser::open(&project, &address(&project, "report.html"), 390).unwrap();
    let drawn = page.value("performance.getEntriesByType('navigation')[0].domComplete");
    assert_eq!(page.texts("#runs-table tbody tr").len(), 100);
    assert_eq!(page.sideways(), [""; 0]);
    // A second or two on a laptop; several tests share the machine that runs this.
    let (drawn, all) = (drawn.as_f64().unwrap() / 1000.0, started.elapsed());
    eprintln!("a hundred runs are drawn after {drawn:.2} s, {all:.2?} with the browser's start");
    assert!(drawn < 20.0, "{drawn} s");
    page.close();
}

#[test]
fn the_table_sorts_filters_and_chooses_what_is_shown() {
    if browser().is_none() {
        return;
    }
    let project = sweep(6);
    let mut page = Browser::open(&project, &address(&project, "report.html"), 1280).unwrap();
    let rates = "#runs-table tbody td:nth-child(4)";
    assert_eq!(page.texts("#runs-table thead th")[3], "learning_rate");
    let rising = page.texts(rates);
    let sort = "#runs-table [data-keep='sort learning_rate']";
    page.click(sort);
    assert_eq!(page.texts("[aria-sort=ascending]"), ["learning_rate ↑"]);
    assert_eq!(page.texts(rates), rising);
    // The button keeps the focus, so that a key turns the order round.
    page.value("document.activeElement.click()");
    let falling: Vec<_> = rising.iter().rev().cloned().collect();
    assert_eq!(page.texts("[aria-sort=descending]"), ["learning_rate ↓"]);
    assert_eq!(page.texts(rates), falling);
    page.click("#runs-table [data-keep='sort run']");
    assert_eq!(page.texts(rates), rising);

    let curves = "#charts figure[data-metric=train_loss] .curve";
    for (filter, left) in [
        ("learning_rate<0.00035", 3),
        ("learning_rate=0.0002", 1),
        ("run_004", 1),
        ("completed learning_rate>0.0005", 1),
        ("failed", 0),
        ("no_such_column<3", 0),
        ("", 6),
    ] {
        page.write("#filter", filter);
        if filter.is_empty() {
            page.value("(() => { const x = document.querySelector('#filter'); x.value = ''; x.dispatchEvent(new Event('input')); })()");
        }
        let said = if left == 6 { "6 runs".to_owned() } else { format!("{left} of 6 runs") };
        assert_eq!(page.texts("#count"), [said], "{filter}");
        assert_eq!(page.texts(curves).len(), left, "{filter}");
    }

    // One slider for all grids.
    let labels = "#pictures figcaption .faint";
    assert_eq!(page.texts(labels), ["after epoch 2"; 6]);
    page.value("document.querySelector('#all-epochs').focus()");
    page.press("Home");
    assert_eq!(page.texts(labels), ["after epoch 1"; 6]);

    // A name shows one run alone, and all again.
    let third = "[data-keep='only checkpoints/base_training/run_003']";
    page.click(&format!("#runs-table {third}"));
    assert_eq!(page.texts(curves).len(), 1);
    assert_eq!(page.texts("#pictures h3"), ["003 · learning_rate=3e-4"]);
    page.click(&format!("#runs-table {third}"));
    assert_eq!(page.texts(curves).len(), 6);
    page.click("#runs-table [data-keep='show checkpoints/base_training/run_001']");
    assert_eq!(page.texts(curves).len(), 5);

    page.click("#columns summary");
    page.until("document.querySelector(\"[data-keep='column device']\") !== null");
    page.click("[data-keep='column device']");
    assert!(page.texts("#runs-table thead th").contains(&"device".to_owned()));
    page.close();
}

#[test]
fn charts_zoom_smooth_and_change_their_axes() {
    if browser().is_none() {
        return;
    }
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--epochs", "12"]).succeeds();
    project.pipe(&["report"]).succeeds();
    let mut page = Browser::open(&project, &address(&project, "report.html"), 1280).unwrap();
    let chart = "#charts figure[data-metric=train_loss]";
    let path = format!("document.querySelector('{chart} .curve').getAttribute('d')");
    let whole = page.value(&path);
    let (x, y) = page.place(&format!("{chart} svg"));
    page.drag((x - 100.0, y), (x + 100.0, y));
    assert_ne!(page.value(&path), whole, "dragging zooms");
    page.click("#unzoom");
    assert_eq!(page.value(&path), whole);
    page.value(&format!("document.querySelector('{chart} svg').focus()"));
    page.press("+");
    assert_ne!(page.value(&path), whole, "so does a key");
    page.press("0");
    assert_eq!(page.value(&path), whole);
    page.press("Home");
    assert_eq!(page.texts(&format!("{chart} .readout .at")), ["epoch 1"]);
    page.press("ArrowRight");
    assert_eq!(page.texts(&format!("{chart} .readout .at")), ["epoch 2"]);

    page.value("(() => { const x = document.querySelector('#smooth'); x.value = 0.8; x.dispatchEvent(new Event('input')); })()");
    assert_ne!(page.value(&path), whole, "a smoothed curve");
    assert_eq!(
        page.value(&format!(
            "document.querySelector('{chart} .raw').getAttribute('d').split('L').length"
        )),
        12
    );
    let lines =
        format!("[...document.querySelectorAll('{chart} .grid')].map((x) => x.getAttribute('y1'))");
    let linear = page.value(&lines);
    page.click("#curves [data-keep=logarithmic]");
    assert_ne!(page.value(&lines), linear, "logarithmic ticks");
    for (axis, at) in [("step", "step 4"), ("time", "after ")] {
        page.value(&format!("(() => {{ const x = document.querySelector('#axis'); x.value = '{axis}'; x.dispatchEvent(new Event('change')); }})()"));
        page.value(&format!("document.querySelector('{chart} svg').focus()"));
        page.press("Home");
        let said = page.texts(&format!("{chart} .readout .at")).concat();
        assert!(said.starts_with(at), "{axis}: {said}");
    }
    // What the process took of the machine.
    page.click("#metrics summary");
    page.until("document.querySelector(\"[data-keep='metric memory_bytes']\") !== null");
    for metric in ["memory_bytes", "cpu_percent"] {
        page.click(&format!("[data-keep='metric {metric}']"));
        assert_eq!(page.texts(&format!("#charts figure[data-metric={metric}] .curve")).len(), 1);
    }
    page.close();
}

#[test]
fn a_stage_that_is_clicked_tells_its_error_log_and_settings() {
    if browser().is_none() {
        return;
    }
    let project = Project::new();
    let broken = "  broken: { kind: command, run: \"echo before; exit 3\", needs: [base] }\n";
    let later = "  later: { kind: command, run: 'true', needs: [broken] }\n  \
                 last: { kind: command, run: 'true', needs: [later] }\n";
    project.write("p.yaml", format!("{TINY}{broken}{later}"));
    project.pipe(&["run", "p.yaml"]).exits(1);
    project.pipe(&["report", "p.yaml"]).succeeds();
    let mut page = Browser::open(&project, &address(&project, "report.html"), 1000).unwrap();
    // Drawn smaller where that is enough, and not scrolled for a few pixels.
    let around = "document.querySelector('svg.graph').parentElement";
    let room = page.value(&format!("{around}.scrollWidth - {around}.clientWidth"));
    assert_eq!(room, 0, "the graph has room");
    page.resize(1280);
    assert_eq!(page.value("document.querySelector('#stage').hidden"), true);
    page.click(".node[data-keep='node broken']");
    assert_eq!(page.value("document.querySelector('#stage').hidden"), false);
    let error = page.texts("#stage pre.error").concat();
    assert!(error.contains('3'), "{error}");
    page.until("document.querySelector('#stage pre.log') !== null");
    let log = page.texts("#stage pre.log").concat();
    assert!(log.contains("failed:"), "{log}");
    // By keyboard, another one.
    page.value("document.querySelector(\".node[data-keep='node base']\").focus()");
    page.press("Enter");
    assert!(page.texts("#stage h3").concat().starts_with("base"));
    page.value("document.querySelectorAll('#stage details').forEach((x) => { x.open = true; })");
    page.until("document.querySelectorAll('#stage details > div > *').length === 2");
    let told = page.texts("#stage").concat();
    for part in ["epoch 2/2: train_loss=", "learning_rate", "up to date"] {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    page.close();
}

#[test]
fn no_line_of_the_graph_runs_behind_a_stage_and_no_word_out_of_one() {
    if browser().is_none() {
        return;
    }
    let project = Project::new();
    let matrix =
        "    matrix: { learning_rate: [0.001, 0.0003], optimizer.weight_decay: [0.01, 0.1] }\n";
    let further = "  best: { kind: select_best, over: base, monitor: train_loss }
  quality: { kind: evaluate, from: best, dataset: data, metrics: [nearest], to: quality }
  copied: { kind: copy_best, from: best, to: checkpoints/one.ckpt, needs: [data] }
  a_picture_with_a_long_name_of_its_own: { kind: sample, from: copied, n: 2, to: a.png, needs: [quality, data] }
";
    let text = TINY.replace("    dataset: data\n", &format!("    dataset: data\n{matrix}"));
    project.write("p.yaml", format!("{text}{further}"));
    project.pipe(&["report", "p.yaml"]).succeeds();
    let mut page = Browser::open(&project, &address(&project, "report.html"), 1280).unwrap();
    let boxes = "const boxes = [...document.querySelectorAll('.node .box')].map((x) => x.getBoundingClientRect());";
    let crossing = page.value(&format!(
        "(() => {{ {boxes} \
         return [...document.querySelectorAll('.edge')].filter((edge) => {{ \
           const [matrix, length] = [edge.getScreenCTM(), edge.getTotalLength()]; \
           return Array.from({{ length: 200 }}, (_, i) => edge.getPointAtLength((i + 0.5) / 200 * length).matrixTransform(matrix)) \
             .some((p) => boxes.some((b) => p.x > b.left + 2 && p.x < b.right - 2 && p.y > b.top && p.y < b.bottom)); \
         }}).length; }})()"
    ));
    assert_eq!(crossing, 0, "lines behind stages");
    assert!(page.value("document.querySelectorAll('.edge').length").as_u64() > Some(12));
    let outside = page.value(
        "[...document.querySelectorAll('.node')].filter((node) => { \
           const box = node.querySelector('.box').getBoundingClientRect(); \
           return [...node.querySelectorAll('text')].some((x) => x.getBoundingClientRect().right > box.right - 4); \
         }).length",
    );
    assert_eq!(outside, 0, "words out of their stage");
    // Members are told apart.
    let nodes = page.texts(".node .faint");
    let members: std::collections::BTreeSet<_> = nodes.iter().skip(1).take(4).collect();
    assert_eq!(members.len(), 4, "{nodes:?}");
    page.close();
}

#[test]
fn what_is_open_and_typed_stays_while_it_trains() {
    if browser().is_none() {
        return;
    }
    let project = Project::new();
    project.pipe(&["run", "p.yaml", "--set", "sample_every_n_epochs=1"]).succeeds();
    let served = Served::of(&project, &[]);
    let mut page = Browser::open(&project, &served.link, 1280).unwrap();
    page.click(".node[data-keep='node base']");
    page.click("#origins summary");
    page.click("#columns summary");
    page.click("#stage summary");
    page.write("#filter", "completed");
    let open = "[...document.querySelectorAll('details')].map((x) => x.open)";
    page.until("document.querySelectorAll('details[open]').length === 3");
    let before = page.value(open);
    project
        .pipe(&["run", "p.yaml", "--set", "sample_every_n_epochs=1", "--epochs", "3"])
        .succeeds();
    page.until("document.querySelector('#runs-table tbody').textContent.includes('3 of 3')");
    assert_eq!(page.value(open), before);
    assert_eq!(page.value("document.querySelector('#filter').value"), "completed");
    assert_eq!(page.value("document.activeElement.id"), "filter");
    assert_eq!(page.value("document.querySelector('#stage').hidden"), false);

    // While it runs, it says how far it is and how long it takes.
    let mut child =
        project.start(&["run", "p.yaml", "--set", "sample_every_n_epochs=1", "--epochs", "4000"]);
    page.write("#filter", "running");
    page.until("/of 4000, about .* left/.test(document.querySelector('#now').textContent)");
    let at = "document.querySelector('#now progress').value";
    let first = page.value(at).as_f64().unwrap();
    page.until(&format!("{at} > {first}"));
    child.kill().unwrap();
    child.wait().unwrap();
    page.until("document.querySelector('#now').hidden");
    page.close();
}
