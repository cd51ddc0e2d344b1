//! The seam index: whether pictures show the borders of a network's attention windows.

use image::RgbImage;

use crate::project::root;

/// Mean absolute step between neighbouring pixels across borders of windows of `window` pixels,
/// over the mean step beside them: one pixel before and one behind each border. Above 1 there is a
/// seam. The steps beside a border are at nearly the same place of the picture, where as many edges
/// of what is drawn pass. Rows and columns, all colours, all pictures together.
fn seam_index(images: &[RgbImage], window: u32) -> f64 {
    let (mut across, mut beside) = ((0.0, 0_u32), (0.0, 0_u32));
    for image in images {
        let side = image.width();
        let step = |at: u32, along: u32, down: bool| -> f64 {
            let place = |at: u32| if down { (along, at) } else { (at, along) };
            let (before, behind) = (image[place(at - 1)].0, image[place(at)].0);
            before.iter().zip(behind).map(|(a, b)| f64::from(a.abs_diff(b))).sum()
        };
        for border in (window..side).step_by(window as usize) {
            for along in 0..side {
                for down in [false, true] {
                    across = (across.0 + step(border, along, down), across.1 + 1);
                    for at in [border - 1, border + 1] {
                        beside = (beside.0 + step(at, along, down), beside.1 + 1);
                    }
                }
            }
        }
    }
    (across.0 / f64::from(across.1)) / (beside.0 / f64::from(beside.1))
}

/// Discs on a plain ground at places that cover the picture evenly, 16 pixels square.
fn discs() -> Vec<RgbImage> {
    let disc = |number: u32| {
        let (x, y) = (number % 16, number / 16 % 16);
        let radius = 3.0 + f64::from(number % 5);
        RgbImage::from_fn(16, 16, |column, row| {
            let away = f64::from(column.abs_diff(x)).hypot(f64::from(row.abs_diff(y)));
            let cover = (0.5 + radius - away).clamp(0.0, 1.0);
            image::Rgb([200.0, 90.0, 30.0].map(|colour| (40.0 + cover * (colour - 40.0)) as u8))
        })
    };
    (0..512).map(disc).collect()
}

#[test]
fn discs_have_no_seam() {
    for window in [4, 8] {
        let found = seam_index(&discs(), window);
        assert!((0.95..1.05).contains(&found), "windows of {window}: {found}");
    }
}

#[test]
fn another_shade_in_each_window_is_a_seam() {
    let mut images = discs();
    for image in &mut images {
        for (column, row, pixel) in image.enumerate_pixels_mut() {
            if (column / 8 + row / 8) % 2 == 1 {
                pixel.0 = pixel.0.map(|value| value + 12);
            }
        }
    }
    let found = seam_index(&images, 8);
    assert!(found > 1.3, "{found}");
    let elsewhere = seam_index(&images, 4);
    assert!(elsewhere > 1.05 && elsewhere < found, "a third of its borders are seams: {elsewhere}");
}

/// The 24 pictures of 16 pixels in a grid below the root, each drawn four times as large: the first one's
/// corner, and how far below it the next row begins.
fn grid(name: &str, left: u32, top: u32, row: u32) -> Vec<RgbImage> {
    let grid = image::open(root().join(name)).unwrap().to_rgb8();
    let places = (0..24).map(|number| (left + number % 8 * 68, top + number / 8 * row));
    let picture = |(x, y)| {
        RgbImage::from_fn(16, 16, |column, line| grid[(x + 4 * column + 2, y + 4 * line + 2)])
    };
    places.map(picture).collect()
}

/// The shipped grids are of a network without windows and of one whose windows are as large as the
/// picture. DiffiT with windows of 8 pixels, trained as long, has shades of its own in each
/// quadrant.
#[test]
fn shipped_pictures_have_no_seam_and_those_of_small_windows_have() {
    for name in ["first_run.png", "shapes_from_base.png"] {
        let found = seam_index(&grid(&format!("docs/pictures/{name}"), 80, 32, 84), 8);
        assert!(found <= 1.05, "{name}: {found}");
    }
    let small_windows = seam_index(&grid("tests/pipe/windows_of_8_pixels.png", 64, 29, 68), 8);
    assert!(small_windows > 1.5, "{small_windows}");
}
