//! The graph as text, and for programs that draw.

use std::fmt::Write;

use pipe_core::ids::StageId;

use super::Graph;

impl Graph {
    /// Lines such as `base (train) <- data`, dependencies first.
    pub fn to_text(&self) -> String {
        let width = self.stages().map(|s| s.id.as_str().len()).max().unwrap_or(0);
        let mut text = String::new();
        for stage in self.stages() {
            let needs: Vec<&str> =
                self.dependencies(&stage.id).iter().map(|(_, s)| s.id.as_str()).collect();
            let arrow =
                if needs.is_empty() { String::new() } else { format!("  <- {}", needs.join(", ")) };
            let line = format!("{:width$}  {}{arrow}", stage.id, stage.kind);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    /// Graphviz.
    pub fn to_dot(&self) -> String {
        let mut text = format!(
            "digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box];\n",
            self.pipeline.name.replace('"', "'")
        );
        for stage in self.stages() {
            let _ = writeln!(text, "  \"{}\" [label=\"{}\\n{}\"];", stage.id, stage.id, stage.kind);
        }
        for (from, to, key) in self.edges() {
            let _ = writeln!(text, "  \"{from}\" -> \"{to}\" [label=\"{key}\"];");
        }
        text + "}\n"
    }

    /// Mermaid flowchart.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        // Mermaid's node names hold less than a stage's name may.
        let node = |id: &StageId| -> String {
            id.as_str()
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
                .collect()
        };
        for stage in self.stages() {
            let _ = writeln!(text, "  {}[\"{}<br/>{}\"]", node(&stage.id), stage.id, stage.kind);
        }
        for (from, to, key) in self.edges() {
            let _ = writeln!(text, "  {} -->|{key}| {}", node(from), node(to));
        }
        text
    }

    fn edges(&self) -> Vec<(&StageId, &StageId, &str)> {
        let stages = self.stages();
        stages
            .flat_map(|to| {
                self.dependencies(&to.id).into_iter().map(|(key, from)| (&from.id, &to.id, key))
            })
            .collect()
    }
}
