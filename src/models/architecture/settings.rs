//! The `model:` block: an architecture, a preset, and what differs from it.

use std::borrow::Cow;
use std::fmt;

use figment::error::Kind;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::config::{ARCH, DEFAULT, ModelConfig};
use super::definition::ImageShape;
use super::registry::{ArchitectureInfo, Architectures};

/// The network: a preset, and what differs from it.
///
/// An architecture's own keys stand among the others and are read by it:
/// [`resolved`](Self::resolved).
#[derive(Debug, Clone, JsonSchema)]
#[schemars(description = "The network: a preset, and what differs from it.")]
#[schemars(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// The family of networks.
    // Not written where it is the default: identities and files are older than the second one.
    #[schemars(with = "Arch", extend("default" = "diffit"))]
    #[schemars(extend("x-known-as" = ["architecture", "model_type"]))]
    pub arch: Option<String>,
    /// Of `arch`; its smallest if unset.
    #[schemars(with = "Preset", extend("default" = "diffit_tiny"))]
    pub preset: Option<String>,
    /// Keys of the architecture, by name.
    #[schemars(skip)]
    pub own: Map<String, Value>,
    /// Learn the classes of the data set, so that samples can be asked for by class.
    pub class_conditional: bool,
    /// Share of images that are trained without their label, for classifier-free guidance
    /// (Ho and Salimans 2022, arXiv 2207.12598).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub label_dropout: f64,
    /// Share of features that are dropped in training, in front of the last layer of each residual
    /// block (Srivastava et al. 2014, JMLR 15); validation and samples drop none.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.0), example = 0.13)]
    pub dropout: f64,
}

/// A word that the registry knows: [`describe`] fills in which there are.
macro_rules! word {
    ($name:ident, $about:literal) => {
        struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"description": $about, "oneOf": []})
            }
        }
    };
}

word!(Arch, "A family of networks, by its name.");
word!(Preset, "A network by name.");

/// Why settings of a model were refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value has another form than its key, or a key is not known. The path begins with `model`.
    #[error("{0}")]
    Form(Box<figment::Error>),
    /// The form is right and the value makes no sense.
    #[error("{key}: {message}")]
    Value { key: String, message: String },
}

impl SettingsError {
    pub fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { key: key.into(), message: message.into() }
    }
}

impl From<figment::Error> for SettingsError {
    /// Of an error in the block itself.
    fn from(error: figment::Error) -> Self {
        Box::new(error).into()
    }
}

impl From<Box<figment::Error>> for SettingsError {
    /// Of an error in the block itself.
    fn from(mut error: Box<figment::Error>) -> Self {
        error.path.insert(0, "model".to_owned());
        Self::Form(error)
    }
}

/// An error at a key of the block.
fn at(key: &str, kind: Kind) -> figment::Error {
    let mut error = figment::Error::from(kind);
    error.path.push(key.to_owned());
    error
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            arch: None,
            preset: None,
            own: Map::new(),
            class_conditional: true,
            label_dropout: 0.1,
            dropout: 0.0,
        }
    }
}

impl<'de> Deserialize<'de> for ModelSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Block;

        impl<'de> Visitor<'de> for Block {
            type Value = ModelSettings;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("struct ModelSettings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModelSettings, A::Error> {
                let mut found = ModelSettings::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        ARCH => found.arch = map.next_value()?,
                        "preset" => found.preset = map.next_value()?,
                        "class_conditional" => found.class_conditional = map.next_value()?,
                        "label_dropout" => found.label_dropout = map.next_value()?,
                        "dropout" => found.dropout = map.next_value()?,
                        _ => {
                            found.own.insert(key, map.next_value()?);
                        }
                    }
                }
                Ok(found)
            }
        }

        deserializer.deserialize_map(Block)
    }
}

impl Serialize for ModelSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut keys = self.own.clone();
        if let Some(arch) = &self.arch {
            keys.insert(ARCH.to_owned(), json!(arch));
        }
        keys.insert("preset".to_owned(), json!(self.preset));
        keys.insert("class_conditional".to_owned(), json!(self.class_conditional));
        keys.insert("label_dropout".to_owned(), json!(self.label_dropout));
        // Not written where it is the default: identities and files are older.
        if self.dropout != 0.0 {
            keys.insert("dropout".to_owned(), json!(self.dropout));
        }
        keys.serialize(serializer)
    }
}

impl ModelSettings {
    /// The settings with what depends on the architecture filled in: one form for all that mean the
    /// same.
    ///
    /// # Errors
    /// An architecture, a preset or a key that is not known, a preset or a key of another
    /// architecture, and a value that its own key does not take.
    pub fn resolved(mut self, known: &Architectures) -> Result<Self, SettingsError> {
        let unknown = |key: &str| !known.keys.contains(&key);
        if let Some(key) = self.own.keys().find(|key| unknown(key)) {
            return Err(at(key, Kind::UnknownField(key.clone(), known.keys)).into());
        }
        let (arch, preset) = self.arch_and_preset(known)?;
        let Some(of) = known.of_preset(&preset) else {
            return Err(at("preset", Kind::UnknownVariant(preset, known.presets)).into());
        };
        if of.name() != arch.name() {
            let (of, arch) = (of.name(), arch.name());
            let text = format!("`{preset}` is a preset of `arch: {of}`, not of `arch: {arch}`");
            return Err(SettingsError::value("model.preset", text));
        }
        let is_foreign = |key: &str| !arch.keys().contains(&key);
        if let Some((key, _)) =
            self.own.iter().find(|(key, value)| is_foreign(key) && !value.is_null())
        {
            let shared = |key: &&str| known.iter().all(|arch| arch.keys().contains(key));
            let keys: Vec<&str> = arch.keys().iter().copied().filter(|key| !shared(key)).collect();
            let (name, has) = (arch.name(), keys.join(", "));
            let text = format!("`arch: {name}` has no such setting; its own are {has}");
            return Err(SettingsError::value(format!("model.{key}"), text));
        }
        self.own = arch.resolved(&self.own)?;
        self.arch = (arch.name() != DEFAULT).then(|| arch.name().to_owned());
        self.preset = Some(preset);
        Ok(self)
    }

    fn arch_and_preset<'a>(
        &self,
        known: &'a Architectures,
    ) -> Result<(&'a dyn ArchitectureInfo, String), SettingsError> {
        let name = self.arch.as_deref().unwrap_or(DEFAULT);
        let Some(arch) = known.get(name) else {
            return Err(at(ARCH, Kind::UnknownVariant(name.to_owned(), known.names)).into());
        };
        let first = || arch.presets().first().map(|(name, _)| (*name).to_owned());
        Ok((arch, self.preset.clone().or_else(first).unwrap_or_default()))
    }

    /// The network for a data set of RGB images.
    ///
    /// # Errors
    /// As for [`resolved`](Self::resolved), which settings have passed before.
    pub fn config(
        &self,
        known: &Architectures,
        image_size: usize,
        classes: usize,
    ) -> Result<ModelConfig, SettingsError> {
        let classes = if self.class_conditional { classes } else { 0 };
        let image = ImageShape { size: image_size, channels: 3, classes };
        let settings = self.clone().resolved(known)?;
        let (arch, preset) = settings.arch_and_preset(known)?;
        Ok(arch.config(&preset, &settings.own, image)?)
    }
}

/// Puts what the architectures say of themselves into the schema of settings that have a
/// [`ModelSettings`] in `model`.
pub fn describe(known: &Architectures, schema: &mut Schema) {
    let words = |all: &mut dyn Iterator<Item = (&'static str, &'static str)>| -> Value {
        all.map(|(name, about)| json!({"const": name, "description": about, "type": "string"}))
            .collect()
    };
    let default = ModelSettings::default().resolved(known).map(|model| json!(model));
    if let (Some(model), Ok(default)) = (schema.pointer_mut("/properties/model"), default) {
        model["default"] = default;
    }
    let Some(Value::Object(definitions)) = schema.get_mut("$defs") else { return };
    let archs = words(&mut known.iter().map(|arch| (arch.name(), arch.about())));
    let presets = words(&mut known.iter().flat_map(|arch| arch.presets()).copied());
    for (name, words) in [("Arch", archs), ("Preset", presets)] {
        if let Some(definition) = definitions.get_mut(name) {
            definition["oneOf"] = words;
        }
    }
    for arch in known.iter() {
        let mut own = arch.schema().to_value();
        let mut take = |key: &str| match own.get_mut(key).map(Value::take) {
            Some(Value::Object(map)) => map,
            _ => Map::new(),
        };
        let (properties, inner) = (take("properties"), take("$defs"));
        let model = definitions.get_mut("ModelSettings").and_then(|m| m.get_mut("properties"));
        if let Some(Value::Object(model)) = model {
            properties.into_iter().for_each(|(key, property)| {
                model.entry(key).or_insert(property);
            });
        }
        inner.into_iter().for_each(|(name, definition)| {
            definitions.entry(name).or_insert(definition);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(settings: Value) -> Result<Value, String> {
        let settings: ModelSettings = serde_json::from_value(settings).unwrap();
        let resolved =
            settings.resolved(&Architectures::builtin()).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(resolved).unwrap())
    }

    #[test]
    fn every_preset_makes_a_network_of_its_architecture() {
        let known = Architectures::builtin();
        for arch in known.iter() {
            for (preset, _) in arch.presets() {
                let settings: ModelSettings =
                    serde_json::from_value(json!({"arch": arch.name(), "preset": preset})).unwrap();
                let config = settings.config(&known, 32, 10).unwrap();
                assert_eq!((config.arch(), config.validate()), (arch.name(), Ok(())));
                assert_eq!((config.image_size(), config.num_classes()), (32, 10));
            }
        }
        assert_eq!(known.presets().len(), 6);
    }

    #[test]
    fn the_keys_of_an_architecture_are_those_of_its_settings() {
        for arch in Architectures::builtin().iter() {
            let schema = arch.schema().to_value();
            let mut keys = arch.keys().to_vec();
            keys.sort_unstable();
            assert!(schema["properties"].as_object().unwrap().keys().eq(&keys), "{}", arch.name());
        }
    }

    #[test]
    fn the_default_architecture_is_not_written_and_the_settings_are_those_of_before() {
        let before = json!({
            "preset": "diffit_tiny", "dim": null, "mults": null, "depths": null, "heads": null,
            "window": null, "class_conditional": true, "label_dropout": 0.1,
        });
        assert_eq!(resolved(json!({})), Ok(before.clone()));
        assert_eq!(resolved(json!({"arch": "diffit"})), Ok(before.clone()));
        assert_eq!(resolved(before.clone()), Ok(before.clone()));
        assert_eq!(resolved(json!({"dropout": 0.0})), Ok(before));
        assert_eq!(resolved(json!({"dropout": 0.13})).unwrap()["dropout"], 0.13);
    }

    #[test]
    fn another_architecture_has_its_own_preset_and_keys() {
        let unet = resolved(json!({"arch": "unet", "depth": 1})).unwrap();
        // The keys of the first architecture were written for the second one too.
        let before = json!({
            "arch": "unet", "preset": "unet_tiny", "dim": null, "mults": null, "depths": null,
            "heads": null, "window": null, "depth": 1, "class_conditional": true,
            "label_dropout": 0.1,
        });
        assert_eq!(unet, before);
        assert_eq!(resolved(unet.clone()), Ok(unet));
        let refused = |settings: Value| resolved(settings).unwrap_err();
        let wrong_preset = refused(json!({"preset": "unet_small"}));
        assert!(
            wrong_preset.contains("`unet_small` is a preset of `arch: unet`"),
            "{wrong_preset}"
        );
        let wrong_key = refused(json!({"arch": "unet", "heads": 2}));
        assert!(wrong_key.contains("model.heads") && wrong_key.contains("depth, attention"));
    }

    #[test]
    fn what_is_not_known_or_of_another_form_names_its_key() {
        let refused = |settings: Value| {
            let settings: ModelSettings = serde_json::from_value(settings).unwrap();
            match settings.resolved(&Architectures::builtin()) {
                Err(SettingsError::Form(error)) => (error.path.join("."), error.kind),
                other => panic!("{other:?}"),
            }
        };
        let (path, kind) = refused(json!({"arch": "vit"}));
        assert_eq!(path, "model.arch");
        assert!(matches!(kind, Kind::UnknownVariant(name, ["diffit", "unet"]) if name == "vit"));
        let (path, kind) = refused(json!({"preset": "big"}));
        assert_eq!(path, "model.preset");
        assert!(matches!(kind, Kind::UnknownVariant(_, presets) if presets.len() == 6));
        let (path, kind) = refused(json!({"dime": 3}));
        assert_eq!(path, "model.dime");
        let keys = [
            "arch",
            "preset",
            "dim",
            "mults",
            "depths",
            "heads",
            "window",
            "depth",
            "attention",
            "class_conditional",
            "label_dropout",
            "dropout",
        ];
        assert!(matches!(kind, Kind::UnknownField(_, known) if *known == keys));
        let (path, kind) = refused(json!({"mults": [1, "two"]}));
        assert_eq!(path, "model.mults.1");
        assert!(matches!(kind, Kind::InvalidType(..)), "{kind:?}");
    }
}
