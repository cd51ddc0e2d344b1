//! What the command line says of the output. Every command takes it.

use clap::{Args, ValueEnum};

/// What goes to the terminal.
#[derive(Args)]
pub struct Output {
    /// Show progress and logs as text or as JSON lines (both on stderr)
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    pub log: LogFormat,
    /// Say more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub quiet: bool,
}

impl Output {
    /// The same as arguments again.
    pub fn to_arguments(&self) -> Vec<String> {
        let json = (self.log == LogFormat::Json).then(|| "--log=json".to_owned());
        let verbose = (0..self.verbose).map(|_| "--verbose".to_owned());
        json.into_iter().chain(verbose).chain(self.quiet.then(|| "--quiet".to_owned())).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}
