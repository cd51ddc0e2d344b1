//! The config of a network of whichever architecture, as one type.

use std::any::Any;
use std::fmt::{self, Debug};

use burn::tensor::Device;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::config_error::ConfigError;
use super::definition::{Architecture, ImageShape};
use super::network::Network;
use crate::diffit::DiffitConfig;

/// Key of an architecture's name in settings and in the JSON of a [`ModelConfig`].
pub(super) const ARCH: &str = "arch";

/// The architecture where none is named. Files and identities are older than the second one, so
/// that its name is not written.
pub(super) const DEFAULT: &str = DiffitConfig::NAME;

/// Everything that decides the parameters of a network and their shapes, of whichever architecture.
/// It is read by [`Architectures::read`](super::Architectures::read).
pub struct ModelConfig(Box<dyn AnyConfig>);

/// [`Architecture`] without types and constants.
trait AnyConfig: Debug + Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn copied(&self) -> ModelConfig;
    fn is(&self, other: &dyn Any) -> bool;
    fn json(&self) -> serde_json::Result<Value>;
    fn name(&self) -> &'static str;
    fn shape(&self) -> ImageShape;
    fn for_classes(self: Box<Self>, classes: usize) -> ModelConfig;
    fn with_augment(self: Box<Self>, labels: usize) -> ModelConfig;
    fn augment(&self) -> usize;
    fn check(&self) -> Result<(), ConfigError>;
    fn empty(&self, device: &Device) -> Result<Network, ConfigError>;
    fn initial(&self, seed: u64, device: &Device) -> Result<Network, ConfigError>;
}

impl<A: Architecture> AnyConfig for A {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn copied(&self) -> ModelConfig {
        self.clone().into()
    }
    fn is(&self, other: &dyn Any) -> bool {
        other.downcast_ref() == Some(self)
    }
    fn json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }
    fn name(&self) -> &'static str {
        A::NAME
    }
    fn shape(&self) -> ImageShape {
        self.image()
    }
    fn for_classes(self: Box<Self>, classes: usize) -> ModelConfig {
        self.with_classes(classes).into()
    }
    fn with_augment(self: Box<Self>, labels: usize) -> ModelConfig {
        self.with_augment_labels(labels).into()
    }
    fn augment(&self) -> usize {
        self.augment_labels()
    }
    fn check(&self) -> Result<(), ConfigError> {
        self.validate()
    }
    fn empty(&self, device: &Device) -> Result<Network, ConfigError> {
        self.skeleton(device).map(Network::new)
    }
    fn initial(&self, seed: u64, device: &Device) -> Result<Network, ConfigError> {
        self.init(seed, device).map(Network::new)
    }
}

impl<A: Architecture> From<A> for ModelConfig {
    fn from(config: A) -> Self {
        Self(Box::new(config))
    }
}

impl ModelConfig {
    /// Name of the architecture.
    pub fn arch(&self) -> &'static str {
        self.0.name()
    }

    /// Side of the square image in pixels.
    pub fn image_size(&self) -> usize {
        self.0.shape().size
    }

    /// Colour channels of the image.
    pub fn channels(&self) -> usize {
        self.0.shape().channels
    }

    /// Number of classes; 0 for a network without labels.
    pub fn num_classes(&self) -> usize {
        self.0.shape().classes
    }

    /// The same network for other classes.
    pub fn with_classes(self, classes: usize) -> Self {
        self.0.for_classes(classes)
    }

    /// The same network, told by so many numbers what the augmentation did to an image: see
    /// [`Architecture::with_augment_labels`].
    pub fn with_augment_labels(self, labels: usize) -> Self {
        self.0.with_augment(labels)
    }

    /// Numbers that tell the network what the augmentation did to an image.
    pub fn augment_labels(&self) -> usize {
        self.0.augment()
    }

    /// Checks that a network of this shape exists.
    ///
    /// # Errors
    /// The first [`ConfigError`] found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.0.check()
    }

    /// The network with every parameter at zero: see [`Architecture::skeleton`].
    ///
    /// # Errors
    /// A shape that [`validate`](Self::validate) refuses.
    pub fn skeleton(&self, device: &Device) -> Result<Network, ConfigError> {
        self.0.empty(device)
    }

    /// A new network on `device`: see [`Architecture::init`].
    ///
    /// # Errors
    /// A shape that [`validate`](Self::validate) refuses.
    pub fn init(&self, seed: u64, device: &Device) -> Result<Network, ConfigError> {
        self.0.initial(seed, device)
    }
}

impl Clone for ModelConfig {
    fn clone(&self) -> Self {
        self.0.copied()
    }
}

impl PartialEq for ModelConfig {
    fn eq(&self, other: &Self) -> bool {
        self.0.is(other.0.as_any())
    }
}

impl Debug for ModelConfig {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The settings alone for the default architecture, as they were before there was another; the
/// architecture's name beside them for the others.
impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = self.0.json().map_err(S::Error::custom)?;
        if self.arch() != DEFAULT
            && let Value::Object(keys) = &mut value
        {
            keys.insert(ARCH.to_owned(), self.arch().into());
        }
        value.serialize(serializer)
    }
}
