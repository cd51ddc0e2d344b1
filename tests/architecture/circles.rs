//! Modules that import each other in a circle are one module in several files: whoever changes one
//! has to know all.

use crate::sources::{Crate, Module, crates};

/// Two files may know each other.
const BOUND: usize = 2;

/// The modules of the largest circle.
fn largest(of: &Crate) -> Vec<&Module> {
    let modules: Vec<&Module> = of.modules.keys().collect();
    let number = |module: &Module| modules.iter().position(|other| *other == module);
    let imports: Vec<Vec<usize>> = modules
        .iter()
        .map(|module| of.imports(module).iter().filter_map(number).collect())
        .collect();
    let reached: Vec<Vec<bool>> = (0..modules.len()).map(|from| reached(from, &imports)).collect();
    let circle = |module: usize| -> Vec<&Module> {
        let inside = |other: &usize| reached[module][*other] && reached[*other][module];
        (0..modules.len()).filter(inside).map(|other| modules[other]).collect()
    };
    (0..modules.len()).map(circle).max_by_key(Vec::len).unwrap_or_default()
}

/// Which modules one imports, by itself or by others.
fn reached(from: usize, imports: &[Vec<usize>]) -> Vec<bool> {
    let (mut seen, mut open) = (vec![false; imports.len()], vec![from]);
    while let Some(module) = open.pop() {
        for &next in &imports[module] {
            if !std::mem::replace(&mut seen[next], true) {
                open.push(next);
            }
        }
    }
    seen
}

#[test]
fn no_crate_has_a_circle_of_more_than_two_files() {
    let mut wrong = Vec::new();
    for of in crates() {
        let circle = largest(&of);
        let files: Vec<&str> = circle.iter().map(|module| &*of.modules[*module].path).collect();
        println!("{}: {} files in the largest circle, {BOUND} allowed", of.name, files.len());
        if files.len() > BOUND {
            let edges = circle.iter().flat_map(|from| {
                let to = of.imports(from).into_iter().filter(|to| circle.contains(&to));
                to.map(|to| format!("  {} -> {}", from.join("::"), to.join("::")))
                    .collect::<Vec<_>>()
            });
            let edges: Vec<String> = edges.collect();
            wrong.push(format!(
                "src/{}: {} files import each other in a circle, {BOUND} are allowed:\n{}",
                of.name,
                files.len(),
                edges.join("\n")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
