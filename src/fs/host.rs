//! Which machine this is.

/// The machine's name, for messages.
pub fn host() -> String {
    let name = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let name = name.map(|n| n.trim().replace(char::is_control, "?"));
    name.filter(|n| !n.is_empty()).unwrap_or_else(|| "localhost".into())
}
