//! Commands as one types them: words in such a form that a shell reads them back.

use std::fmt;
use std::path::Path;

/// Characters that no shell gives a meaning to, wherever they stand in a word.
const PLAIN: &str = "/._-+=@,:%";

/// A word as a shell reads it back, whatever is in it.
pub fn quote(text: &str) -> String {
    let plain = !text.is_empty()
        && !text.starts_with('=')
        && text.chars().all(|c| c.is_alphanumeric() || PLAIN.contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A command to type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Variables of its environment, which stand before the program.
    before: String,
    words: Vec<String>,
}

impl CommandLine {
    /// A program, and words that follow it as they are.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self { before: String::new(), words: words.into_iter().map(quote).collect() }
    }

    /// One more word, such as a stage's name.
    pub fn word(mut self, text: &str) -> Self {
        self.words.push(quote(text));
        self
    }

    /// A path. It is not read as an option, even if its name begins like one.
    pub fn path(self, path: &Path) -> Self {
        let text = path.display().to_string();
        let text = if text.starts_with('-') { format!("./{text}") } else { text };
        self.word(&text)
    }

    /// Options in the form `--name=value`, or `--name`. They are shown as two words where that is
    /// read alike.
    pub fn options<S: AsRef<str>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        for option in options {
            match option.as_ref().split_once('=') {
                Some((name, value)) if !value.is_empty() && !value.starts_with('-') => {
                    self.words.extend([quote(name), quote(value)]);
                }
                _ => self.words.push(quote(option.as_ref())),
            }
        }
        self
    }

    /// The command with a variable set for it alone: `NAME=value pipe run`.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.before.push_str(&format!("{name}={} ", quote(value)));
        self
    }
}

/// A command that works in `folder`, for a shell that stands elsewhere.
pub fn inside(folder: &Path, command: &str) -> String {
    format!("{} && {command}", CommandLine::new(["cd"]).path(folder))
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}", self.before, self.words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shell makes of a line.
    fn read(line: &str) -> Vec<String> {
        let script = format!("printf '%s\\0' {line}");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn a_shell_reads_back_every_word() {
        let ascii: String = (1..128u8).map(char::from).collect();
        let each: Vec<String> = ascii.chars().map(String::from).collect();
        let mut words: Vec<&str> = each.iter().map(String::as_str).collect();
        words.extend([
            "", "a b", "it's", "~", "$HOME", "`id`", "Früchte", "模型", "-x", "a=b", &ascii,
        ]);
        for text in &words {
            assert_eq!(read(&quote(text)), [*text]);
        }
        assert_eq!(read(&CommandLine::new(words.clone()).to_string()), words);
    }

    #[test]
    fn options_and_paths_are_read_as_what_they_are() {
        let line = CommandLine::new(["pipe", "run"]).path(Path::new("-p.yaml")).word("base");
        let line = line.options(["--set=a=b c", "--seed=-1", "--resume", "--x="]);
        assert_eq!(
            line.to_string(),
            "pipe run ./-p.yaml base --set 'a=b c' --seed=-1 --resume --x="
        );
        assert_eq!(inside(Path::new("a b"), "pipe runs"), "cd 'a b' && pipe runs");
        let with =
            CommandLine::new(["pipe"]).with_variable("PIPE_EPOCHS", "5 0").with_variable("A", "1");
        assert_eq!(with.to_string(), "PIPE_EPOCHS='5 0' A=1 pipe");
    }
}
