//! Settings of the sampler, of whichever stage samples: read, checked, and as a picture says them.

use pipe_engine::kind::Rejection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diffusion::{Churn, Method, Sampler};

/// How images come out of noise; what is unset is as in EDM's deterministic sampler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerSettings {
    /// How a noise level is left for the next one: `heun` if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-known-as" = ["solver", "sampler_name", "sampler_type"]))]
    pub method: Option<Method>,
    /// The lowest noise level; 0.002 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1e-6))]
    pub sigma_min: Option<f64>,
    /// The highest noise level; 80 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1e6))]
    pub sigma_max: Option<f64>,
    /// How much closer the levels lie at the clean end; 7 if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub rho: Option<f64>,
    /// Fresh noise before each step, for `heun` and `euler`; none if unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-known-as" = ["eta"]))]
    pub churn: Option<ChurnSettings>,
}

/// Fresh noise before each step: EDM's stochastic sampler.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChurnSettings {
    /// How much of it, for all steps together; a step at most doubles its variance.
    #[schemars(range(min = 0), extend("x-known-as" = ["S_churn", "s_churn"]))]
    pub amount: f64,
    /// The lowest noise level to which noise is added; 0 if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("x-known-as" = ["S_min", "s_tmin"]))]
    pub from: Option<f64>,
    /// The highest one; without a limit if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("x-known-as" = ["S_max", "s_tmax"]))]
    pub to: Option<f64>,
    /// Standard deviation of the noise that is added; 1 if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend("x-known-as" = ["S_noise", "s_noise"]))]
    pub noise: Option<f64>,
}

/// Of a stage's `steps` that is unset.
pub fn default_steps() -> usize {
    Sampler::default().steps
}

/// Of a stage's `guidance` that is unset.
pub fn default_guidance() -> f64 {
    Sampler::default().guidance
}

/// Noise levels with guidance, as a person gives them: above the first, up to the second.
pub type GuidanceInterval = [f64; 2];

impl SamplerSettings {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The sampler of a stage that has these settings as `sampler`, beside `steps`, `guidance` and
    /// `guidance_interval`.
    ///
    /// # Errors
    /// Numbers that make no sense; the key is that of the stage's setting.
    pub fn sampler(
        &self,
        steps: usize,
        guidance: f64,
        interval: Option<GuidanceInterval>,
    ) -> Result<Sampler, Rejection> {
        Rejection::unless("steps", (1..=1000).contains(&steps), "1 to 1000")?;
        Rejection::unless("guidance", guidance >= 0.0 && guidance.is_finite(), "0 or more")?;
        let is_interval =
            interval.is_none_or(|[from, to]| 0.0 <= from && from < to && to.is_finite());
        let expected = "two noise levels, the lower one first, such as 0.28 and 2.9";
        Rejection::unless("guidance_interval", is_interval, expected)?;
        let unset = Sampler::default();
        let sampler = Sampler {
            method: self.method.unwrap_or_default(),
            steps,
            sigma_min: self.sigma_min.unwrap_or(unset.sigma_min),
            sigma_max: self.sigma_max.unwrap_or(unset.sigma_max),
            rho: self.rho.unwrap_or(unset.rho),
            churn: self.churn.map_or(Ok(unset.churn), |churn| churn.checked())?,
            guidance,
            guidance_interval: interval.map(|[from, to]| (from, to)),
        };
        let Sampler { sigma_min, sigma_max, rho, .. } = sampler;
        // Outside of these, single precision ends.
        Rejection::unless("sampler.sigma_min", sigma_min >= 1e-6, "1e-6 or more")?;
        Rejection::unless("sampler.sigma_max", sigma_max <= 1e6, "1e6 or less")?;
        let key = if self.sigma_max.is_some() { "sigma_max" } else { "sigma_min" };
        let expected = "a highest noise level above the lowest one";
        Rejection::unless(format!("sampler.{key}"), sigma_min < sigma_max, expected)?;
        Rejection::unless("sampler.rho", (1.0..=100.0).contains(&rho), "1 to 100")?;
        let is_taken = sampler.method != Method::Dpmpp2m || sampler.churn.amount == 0.0;
        let expected = "no churn beside `dpmpp_2m`, which goes on from the step before; `heun` and `euler` take it";
        Rejection::unless("sampler.churn", is_taken, expected)?;
        Ok(sampler)
    }
}

impl ChurnSettings {
    fn checked(&self) -> Result<Churn, Rejection> {
        let Churn { from, to, noise, .. } = Churn::default();
        let churn = Churn {
            amount: self.amount,
            from: self.from.unwrap_or(from),
            to: self.to.unwrap_or(to),
            noise: self.noise.unwrap_or(noise),
        };
        let is_size = |number: f64| number >= 0.0 && number.is_finite();
        Rejection::unless("sampler.churn.amount", is_size(churn.amount), "0 or more")?;
        Rejection::unless("sampler.churn.from", is_size(churn.from), "0 or more")?;
        let key = if self.to.is_some() { "to" } else { "from" };
        let expected = "an interval that begins below its end";
        Rejection::unless(format!("sampler.churn.{key}"), churn.from < churn.to, expected)?;
        Rejection::unless("sampler.churn.noise", is_size(churn.noise), "0 or more")?;
        Ok(churn)
    }
}

/// What of a sampler is not as it is unless a person says otherwise, besides `steps` and `guidance`:
/// by the names of the settings.
pub(super) fn unusual(sampler: &Sampler) -> Vec<(&'static str, String)> {
    let (unset, none) = (Sampler::default(), Churn::default());
    let Sampler { method, sigma_min, sigma_max, rho, churn, guidance_interval, .. } = *sampler;
    let mut found = Vec::new();
    if method != unset.method {
        let name = serde_json::to_value(method).unwrap_or_default();
        found.push(("method", name.as_str().unwrap_or_default().to_owned()));
    }
    let numbers = [
        ("sigma_min", sigma_min, unset.sigma_min),
        ("sigma_max", sigma_max, unset.sigma_max),
        ("rho", rho, unset.rho),
        ("churn", churn.amount, none.amount),
    ];
    let of_churn = [
        ("churn_from", churn.from, none.from),
        ("churn_to", churn.to, none.to),
        ("churn_noise", churn.noise, none.noise),
    ];
    let of_churn = of_churn.into_iter().filter(|_| churn.amount > 0.0);
    let other = numbers.into_iter().chain(of_churn).filter(|(_, number, unset)| number != unset);
    found.extend(other.map(|(key, number, _)| (key, number.to_string())));
    if let Some((from, to)) = guidance_interval.filter(|_| sampler.guidance != 1.0) {
        found.push(("guidance_interval", format!("{from},{to}")));
    }
    found
}

/// A sampler as a title says it: `18 steps, guidance 1`, and what else is unusual.
pub fn sampler_in_words(sampler: &Sampler) -> String {
    let mut words = format!("{} steps, guidance {}", sampler.steps, sampler.guidance);
    unusual(sampler).iter().for_each(|(key, value)| words += &format!(", {key} {value}"));
    words
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Sampler, String> {
        let settings: SamplerSettings = serde_json::from_value(value).map_err(|e| e.to_string())?;
        settings.sampler(18, 2.0, Some([0.28, 2.9])).map_err(|rejection| match rejection {
            Rejection::Value { key, message } | Rejection::Unused { key, message } => {
                format!("{key}: {message}")
            }
            Rejection::Form(error) => error.to_string(),
        })
    }

    #[test]
    fn what_is_unset_is_edms_deterministic_sampler() {
        let settings = SamplerSettings::default();
        assert_eq!(settings.sampler(18, 1.0, None).unwrap(), Sampler::default());
        assert_eq!(serde_json::to_value(settings).unwrap(), json!({}));
        assert!(settings.is_default() && unusual(&Sampler::default()).is_empty());
    }

    #[test]
    fn what_is_set_is_taken_and_said() {
        let churn = json!({"amount": 40, "from": 0.05, "to": 50, "noise": 1.003});
        let value = json!({"method": "euler", "sigma_min": 0.01, "sigma_max": 50, "rho": 5, "churn": churn});
        let sampler = read(value.clone()).unwrap();
        assert_eq!(sampler.method, Method::Euler);
        assert_eq!(sampler.churn, Churn { amount: 40.0, from: 0.05, to: 50.0, noise: 1.003 });
        assert_eq!(sampler.guidance_interval, Some((0.28, 2.9)));
        let said: Vec<String> =
            unusual(&sampler).into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        let expected = [
            "method euler",
            "sigma_min 0.01",
            "sigma_max 50",
            "rho 5",
            "churn 40",
            "churn_from 0.05",
            "churn_to 50",
            "churn_noise 1.003",
            "guidance_interval 0.28,2.9",
        ];
        assert_eq!(said, expected);
        let dpm = read(json!({"method": "dpmpp_2m", "churn": {"amount": 0}})).unwrap();
        assert_eq!(unusual(&dpm)[0], ("method", "dpmpp_2m".to_owned()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_its_key() {
        for (value, said) in [
            (json!({"sigma_min": 0}), "sampler.sigma_min: expected 1e-6"),
            (json!({"sigma_min": 90}), "sampler.sigma_min: expected a highest"),
            (json!({"sigma_max": 0.001}), "sampler.sigma_max: expected a highest"),
            (json!({"sigma_max": 1e30}), "sampler.sigma_max: expected 1e6"),
            (json!({"rho": 0.5}), "sampler.rho: expected 1 to 100"),
            (json!({"churn": {"amount": -1}}), "sampler.churn.amount: expected 0"),
            (json!({"churn": {"amount": 1, "from": -1}}), "sampler.churn.from: expected 0"),
            (json!({"churn": {"amount": 1, "from": 2, "to": 1}}), "sampler.churn.to: expected an"),
            (json!({"churn": {"amount": 1, "noise": -1}}), "sampler.churn.noise: expected 0"),
            (json!({"churn": {"amount": 1}, "method": "dpmpp_2m"}), "sampler.churn: expected no"),
            (json!({"churns": 1}), "unknown field"),
            (json!({"churn": {}}), "missing field"),
            (json!({"method": "ddim"}), "unknown variant"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.starts_with(said), "{value}: {error}");
        }
        let refused = |steps, guidance, interval| {
            let found = SamplerSettings::default().sampler(steps, guidance, interval);
            matches!(found, Err(Rejection::Value { key, .. }) if !key.starts_with("sampler"))
        };
        assert!(refused(0, 1.0, None) && refused(1, f64::NAN, None) && refused(1, -1.0, None));
        assert!(refused(1, 2.0, Some([2.0, 1.0])) && refused(1, 2.0, Some([-1.0, 1.0])));
        assert!(refused(1, 2.0, Some([0.0, f64::NAN])));
    }
}
