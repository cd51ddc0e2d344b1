//! Options of the sampler, of `pipe sample`.

use pipe_engine::kind::Rejection;
use pipe_models::diffusion::{Method, Sampler};
use pipe_train::sampling::{ChurnSettings, GuidanceInterval, SamplerSettings};

use super::CliError;

#[derive(clap::Args)]
pub struct SamplerArguments {
    /// Noise levels of the sampler
    #[arg(long, default_value_t = 18, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// Weight of the class, or of the model against its --guide: 1 takes it as it is, more
    /// exaggerates it
    #[arg(long, default_value_t = 1.0, value_name = "W")]
    guidance: f64,
    /// Noise levels with guidance: above the first one, up to the second one, such as 0.28,2.9
    #[arg(long, value_name = "FROM,TO", value_parser = interval)]
    guidance_interval: Option<GuidanceInterval>,
    /// How a noise level is left for the next one: heun, euler or dpmpp_2m
    #[arg(long, value_name = "METHOD", value_parser = method, default_value = "heun")]
    sampler: Method,
    /// The lowest noise level; 0.002 if unset
    #[arg(long, value_name = "SIGMA")]
    sigma_min: Option<f64>,
    /// The highest noise level; 80 if unset
    #[arg(long, value_name = "SIGMA")]
    sigma_max: Option<f64>,
    /// How much closer the levels lie at the clean end; 7 if unset
    #[arg(long, value_name = "RHO")]
    rho: Option<f64>,
    /// Fresh noise before each step, EDM's S_churn: so much for all steps together
    #[arg(long, value_name = "AMOUNT")]
    churn: Option<f64>,
    /// The lowest noise level to which noise is added, EDM's S_min; 0 if unset
    #[arg(long, value_name = "SIGMA", requires = "churn")]
    churn_from: Option<f64>,
    /// The highest one, EDM's S_max; without a limit if unset
    #[arg(long, value_name = "SIGMA", requires = "churn")]
    churn_to: Option<f64>,
    /// Standard deviation of the noise that is added, EDM's S_noise; 1 if unset
    #[arg(long, value_name = "S", requires = "churn")]
    churn_noise: Option<f64>,
}

/// Options by the keys of the settings that they stand for.
const OPTIONS: [(&str, &str); 10] = [
    ("sampler.sigma_min", "--sigma-min"),
    ("sampler.sigma_max", "--sigma-max"),
    ("sampler.rho", "--rho"),
    ("sampler.churn", "--churn"),
    ("sampler.churn.amount", "--churn"),
    ("sampler.churn.from", "--churn-from"),
    ("sampler.churn.to", "--churn-to"),
    ("sampler.churn.noise", "--churn-noise"),
    ("guidance", "--guidance"),
    ("guidance_interval", "--guidance-interval"),
];

impl SamplerArguments {
    /// # Errors
    /// Numbers that make no sense.
    pub fn sampler(&self) -> Result<Sampler, CliError> {
        let churn = self.churn.map(|amount| ChurnSettings {
            amount,
            from: self.churn_from,
            to: self.churn_to,
            noise: self.churn_noise,
        });
        let settings = SamplerSettings {
            method: Some(self.sampler),
            sigma_min: self.sigma_min,
            sigma_max: self.sigma_max,
            rho: self.rho,
            churn,
        };
        let sampler =
            settings.sampler(usize::from(self.steps), self.guidance, self.guidance_interval);
        sampler.map_err(|rejection| match rejection {
            Rejection::Value { key, message } | Rejection::Unused { key, message } => {
                let option = OPTIONS.iter().find(|(setting, _)| *setting == key);
                let option = option.map_or(key.as_str(), |(_, option)| option);
                CliError::usage(format!("{option}: {message}"))
            }
            Rejection::Form(error) => CliError::usage(error),
        })
    }

    /// Whether none is given, or only such as are the same without.
    pub fn is_unset(&self) -> bool {
        self.sampler().is_ok_and(|sampler| sampler == Sampler::default())
    }
}

fn method(text: &str) -> Result<Method, String> {
    let known = serde_json::from_value(text.into());
    known.map_err(|_| "expected heun, euler or dpmpp_2m".to_owned())
}

fn interval(text: &str) -> Result<GuidanceInterval, String> {
    let expected = || "expected two noise levels, such as 0.28,2.9".to_owned();
    let (from, to) = text.split_once(',').ok_or_else(expected)?;
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| expected());
    Ok([number(from)?, number(to)?])
}
