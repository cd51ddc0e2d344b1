//! Why the settings of a stage were refused.

/// Why settings were refused. The key path is relative to the stage.
#[derive(Debug)]
pub enum Rejection {
    /// The settings do not have the form that the type asks for.
    Form(Box<figment::Error>),
    /// The form is right and the value makes no sense.
    Value { key: String, message: String },
    /// The setting does nothing beside the others. Who sets it for this stage is told; what is set
    /// for all stages is left out here.
    Unused { key: String, message: String },
}

impl Rejection {
    pub fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }

    /// Refuses the value at `key` if it is not good.
    pub fn unless(key: impl Into<String>, good: bool, expected: &str) -> Result<(), Self> {
        if good { Ok(()) } else { Err(Self::value(key, format!("expected {expected}"))) }
    }

    /// Refuses a setting that does nothing, if it is one.
    pub fn if_unused(key: &str, is_unused: bool, message: &str) -> Result<(), Self> {
        let refuse = || Self::Unused { key: key.to_owned(), message: message.to_owned() };
        if is_unused { Err(refuse()) } else { Ok(()) }
    }

    /// Where the value stands, or should stand.
    pub(crate) fn path(&self) -> Vec<String> {
        match self {
            Self::Value { key, .. } | Self::Unused { key, .. } => {
                key.split('.').filter(|k| !k.is_empty()).map(str::to_owned).collect()
            }
            Self::Form(error) => {
                let mut path = error.path.clone();
                let named = match &error.kind {
                    figment::error::Kind::UnknownField(name, _) => Some(name.clone()),
                    figment::error::Kind::MissingField(name) => Some(name.to_string()),
                    _ => None,
                };
                // The library has it in the path in some cases.
                path.extend(named.filter(|name| path.last() != Some(name)));
                path
            }
        }
    }

    /// Whether the form is right and the value is not.
    pub(crate) fn is_of_value(&self) -> bool {
        matches!(self, Self::Value { .. })
    }

    /// Whether the value is none of the words that may stand there.
    pub(crate) fn is_unknown_word(&self) -> bool {
        matches!(self, Self::Form(error) if matches!(error.kind, figment::error::Kind::UnknownVariant(..)))
    }

    /// The key that is none.
    pub(crate) fn unknown_key(&self) -> Option<&str> {
        let Self::Form(error) = self else { return None };
        match &error.kind {
            figment::error::Kind::UnknownField(name, _) => Some(name),
            _ => None,
        }
    }

    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Form(error) if matches!(error.kind, figment::error::Kind::MissingField(_)))
    }
}

impl From<figment::Error> for Rejection {
    fn from(error: figment::Error) -> Self {
        Self::Form(Box::new(error))
    }
}
