//! The architectures that a program knows, by their names.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;

use figment::Figment;
use figment::providers::Serialized;
use schemars::Schema;
use serde::de::Error as _;
use serde_json::{Map, Value};

use super::config::{ARCH, DEFAULT, ModelConfig};
use super::definition::{Architecture, ImageShape, Shapes};
use crate::diffit::DiffitConfig;
use crate::unet::UnetConfig;

/// The architectures that a program knows, the default first. A copy is cheap.
#[derive(Clone)]
pub struct Architectures {
    all: Arc<[Arc<dyn ArchitectureInfo>]>,
    // Messages about what is written in files hold lists of names that live as long as the program.
    pub(super) names: &'static [&'static str],
    pub(super) presets: &'static [&'static str],
    /// Every key of `model:`.
    pub(super) keys: &'static [&'static str],
}

/// What an [`Architecture`] says of itself.
pub trait ArchitectureInfo: Send + Sync {
    /// [`Architecture::NAME`].
    fn name(&self) -> &'static str;
    /// [`Architecture::ABOUT`].
    fn about(&self) -> &'static str;
    /// [`Architecture::PRESETS`].
    fn presets(&self) -> &'static [(&'static str, &'static str)];
    /// [`Architecture::MARK`].
    fn mark(&self) -> &'static str;
    /// [`Architecture::KEYS`].
    fn keys(&self) -> &'static [&'static str];
    /// The schema of its own keys.
    fn schema(&self) -> Schema;
    /// Its own keys of `model:` with their defaults.
    ///
    /// # Errors
    /// A value of another form than the key has.
    fn resolved(&self, own: &Map<String, Value>)
    -> Result<Map<String, Value>, Box<figment::Error>>;
    /// See [`Architecture::new`].
    ///
    /// # Errors
    /// As for [`resolved`](Self::resolved).
    fn config(
        &self,
        preset: &str,
        own: &Map<String, Value>,
        image: ImageShape,
    ) -> Result<ModelConfig, Box<figment::Error>>;
    /// A config out of its JSON, without the name of the architecture.
    ///
    /// # Errors
    /// JSON of another form.
    fn read(&self, json: Value) -> Result<ModelConfig, serde_json::Error>;
    /// See [`Architecture::smallest`].
    fn smallest(&self) -> ModelConfig;
    /// See [`Architecture::infer`].
    fn infer(&self, shapes: &Shapes, image_size: usize) -> ModelConfig;
}

struct Info<A>(PhantomData<fn() -> A>);

/// Keys of other architectures are passed over: those of a resolved U-Net hold some, which are null.
fn settings<A: Architecture>(own: &Map<String, Value>) -> Result<A::Settings, Box<figment::Error>> {
    let own = own.iter().filter(|(key, _)| A::KEYS.contains(&key.as_str()));
    Figment::from(Serialized::defaults(own.collect::<BTreeMap<_, _>>())).extract().map_err(Box::new)
}

impl<A: Architecture> ArchitectureInfo for Info<A> {
    fn name(&self) -> &'static str {
        A::NAME
    }
    fn about(&self) -> &'static str {
        A::ABOUT
    }
    fn presets(&self) -> &'static [(&'static str, &'static str)] {
        A::PRESETS
    }
    fn mark(&self) -> &'static str {
        A::MARK
    }
    fn keys(&self) -> &'static [&'static str] {
        A::KEYS
    }
    fn schema(&self) -> Schema {
        schemars::schema_for!(A::Settings)
    }
    fn resolved(
        &self,
        own: &Map<String, Value>,
    ) -> Result<Map<String, Value>, Box<figment::Error>> {
        match serde_json::to_value(settings::<A>(own)?) {
            Ok(Value::Object(keys)) => Ok(keys),
            Ok(_) => Ok(Map::new()),
            Err(error) => Err(Box::new(figment::Error::custom(error))),
        }
    }
    fn config(
        &self,
        preset: &str,
        own: &Map<String, Value>,
        image: ImageShape,
    ) -> Result<ModelConfig, Box<figment::Error>> {
        Ok(A::new(preset, settings::<A>(own)?, image).into())
    }
    fn read(&self, json: Value) -> Result<ModelConfig, serde_json::Error> {
        serde_json::from_value::<A>(json).map(ModelConfig::from)
    }
    fn smallest(&self) -> ModelConfig {
        A::smallest().into()
    }
    fn infer(&self, shapes: &Shapes, image_size: usize) -> ModelConfig {
        A::infer(shapes, image_size).into()
    }
}

impl Architectures {
    /// The product's own.
    pub fn builtin() -> Self {
        Self::of(vec![Arc::new(Info::<DiffitConfig>(PhantomData))]).with::<UnetConfig>()
    }

    /// These and one more, which takes the place of one with its name.
    pub fn with<A: Architecture>(&self) -> Self {
        let mut all = self.all.to_vec();
        let new: Arc<dyn ArchitectureInfo> = Arc::new(Info::<A>(PhantomData));
        match all.iter_mut().find(|arch| arch.name() == A::NAME) {
            Some(former) => *former = new,
            None => all.push(new),
        }
        Self::of(all)
    }

    fn of(all: Vec<Arc<dyn ArchitectureInfo>>) -> Self {
        let names: Vec<_> = all.iter().map(|arch| arch.name()).collect();
        let presets: Vec<_> =
            all.iter().flat_map(|arch| arch.presets()).map(|(name, _)| *name).collect();
        let mut keys = vec![ARCH, "preset"];
        for key in all.iter().flat_map(|arch| arch.keys()) {
            if !keys.contains(key) {
                keys.push(key);
            }
        }
        keys.extend(["class_conditional", "label_dropout", "dropout"]);
        Self { all: all.into(), names: names.leak(), presets: presets.leak(), keys: keys.leak() }
    }

    /// Every architecture, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &dyn ArchitectureInfo> {
        self.all.iter().map(|arch| arch.as_ref())
    }

    /// The architecture of a name.
    pub fn get(&self, name: &str) -> Option<&dyn ArchitectureInfo> {
        self.iter().find(|arch| arch.name() == name)
    }

    /// The architecture that a preset is of.
    pub fn of_preset(&self, preset: &str) -> Option<&dyn ArchitectureInfo> {
        self.iter().find(|arch| arch.presets().iter().any(|(name, _)| *name == preset))
    }

    /// Names of all presets, by architecture, smallest first.
    pub fn presets(&self) -> &'static [&'static str] {
        self.presets
    }

    /// A config out of its JSON in the header of a checkpoint.
    ///
    /// # Errors
    /// An architecture that is not known, and JSON of another form than its config has.
    pub fn read(&self, mut json: Value) -> Result<ModelConfig, serde_json::Error> {
        let name = json.as_object_mut().and_then(|keys| keys.remove(ARCH));
        let name = name.map_or(Ok(DEFAULT.to_owned()), serde_json::from_value)?;
        match self.get(&name) {
            Some(arch) => arch.read(json),
            None => Err(serde_json::Error::unknown_variant(&name, self.names)),
        }
    }
}
