//! Colours of drawn images.

/// Red, green and blue in `[0, 1]`.
pub(super) type Rgb = [f32; 3];

/// Hue (a fraction of the circle, from red), saturation and value to RGB, all in `[0, 1]`.
pub(super) fn hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    [5.0, 3.0, 1.0].map(|offset| {
        let k = (offset + 6.0 * hue) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// Rec. 601 luma.
pub(super) fn luminance(c: Rgb) -> f32 {
    0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_are_where_they_belong() {
        assert_eq!(hsv(0.0, 1.0, 1.0), [1.0, 0.0, 0.0]);
        assert_eq!(hsv(0.5, 1.0, 1.0), [0.0, 1.0, 1.0]);
        assert_eq!(hsv(0.3, 0.0, 0.5), [0.5, 0.5, 0.5]);
    }
}
