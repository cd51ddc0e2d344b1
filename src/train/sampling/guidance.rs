//! What of guidance is asked for and does nothing, or harm.

/// Why guidance does nothing, or harm, with the settings that say so: for a model of so many classes
/// that was trained with this share of its images unlabelled. What is unknown is taken to be fine.
#[derive(Debug, Clone, Copy)]
pub struct GuidanceCheck {
    pub guidance: f64,
    pub has_interval: bool,
    pub has_guide: bool,
    pub classes: Option<usize>,
    pub label_dropout: Option<f64>,
}

impl GuidanceCheck {
    /// Each with the key of its setting.
    pub fn doubts(self) -> Vec<(&'static str, String)> {
        let Self { guidance, classes, label_dropout, .. } = self;
        if guidance == 1.0 {
            let unused = [("guide", self.has_guide), ("guidance_interval", self.has_interval)];
            let unused = unused.into_iter().filter(|(_, is_set)| *is_set);
            let text = |key| format!("{key} changes nothing: guidance is 1, which is none");
            return unused.map(|(key, _)| (key, text(key))).collect();
        }
        let text = match (classes, label_dropout) {
            _ if self.has_guide => return Vec::new(),
            (Some(0), _) => {
                format!("guidance {guidance} changes nothing: the model knows no classes")
            }
            (_, Some(0.0)) => format!(
                "guidance {guidance} needs what the model samples without a class, and it was trained with label_dropout 0: \
                 it has not learned that"
            ),
            _ => return Vec::new(),
        };
        vec![("guidance", text)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_is_doubted_only_where_it_cannot_work() {
        let check = |guidance, classes, label_dropout| GuidanceCheck {
            guidance,
            has_interval: false,
            has_guide: false,
            classes,
            label_dropout,
        };
        let doubt = |check: GuidanceCheck| {
            check
                .doubts()
                .into_iter()
                .map(|(key, text)| format!("{key}: {text}"))
                .collect::<String>()
        };
        assert!(doubt(check(2.0, Some(0), Some(0.1))).contains("knows no classes"));
        assert!(doubt(check(0.0, Some(3), Some(0.0))).contains("label_dropout 0"));
        assert!(doubt(check(1.5, None, Some(0.0))).contains("label_dropout 0"));
        for (guidance, classes, dropout) in
            [(1.0, Some(0), Some(0.0)), (2.0, Some(3), Some(0.1)), (2.0, None, None)]
        {
            assert_eq!(doubt(check(guidance, classes, dropout)), "");
        }
        let guided = |guidance| GuidanceCheck { has_guide: true, ..check(guidance, Some(0), None) };
        assert_eq!(doubt(guided(2.0)), "", "a guide needs no classes");
        assert!(doubt(guided(1.0)).starts_with("guide: guide changes nothing"));
        let interval = GuidanceCheck { has_interval: true, ..check(1.0, None, None) };
        assert!(doubt(interval).starts_with("guidance_interval: "));
    }
}
