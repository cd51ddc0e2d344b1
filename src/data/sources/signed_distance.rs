//! Signed distances to outlines in the plane, for drawing without jagged edges. Knows nothing of
//! pixels or colours.
//!
//! Outlines fill about the unit disc; y points down, as in images. Distances are negative inside.

use std::f32::consts::TAU;

pub(crate) type Point = [f32; 2];

/// A region of the plane.
pub(crate) enum Region {
    Disc,
    /// Between two circles around the origin.
    Ring {
        inner: f32,
    },
    /// A disc with a bite out of its right side.
    Moon {
        bite_at: f32,
        bite_radius: f32,
    },
    /// A closed polygon that does not cross itself.
    Polygon(Vec<Point>),
}

impl Region {
    /// Distance from `p` to the nearest edge, negative inside. For `Moon` a lower bound, exact near
    /// the edge.
    pub fn distance(&self, p: Point) -> f32 {
        let disc = |at: f32, radius: f32| (p[0] - at).hypot(p[1]) - radius;
        match self {
            Self::Disc => disc(0.0, 1.0),
            Self::Ring { inner } => disc(0.0, 1.0).max(-disc(0.0, *inner)),
            Self::Moon { bite_at, bite_radius } => {
                disc(0.0, 1.0).max(-disc(*bite_at, *bite_radius))
            }
            Self::Polygon(corners) => polygon_distance(corners, p),
        }
    }

    /// `n` corners on the unit circle, the first on top.
    pub fn regular(n: usize) -> Self {
        Self::Polygon((0..n).map(|i| on_circle(i as f32 / n as f32, 1.0)).collect())
    }

    /// A square with its sides upright.
    pub fn square() -> Self {
        let h = 0.86;
        Self::Polygon(vec![[-h, -h], [h, -h], [h, h], [-h, h]])
    }

    /// `points` rays; `inner` is the radius of the corners between them.
    pub fn star(points: usize, inner: f32) -> Self {
        let corner = |i: usize| {
            on_circle(i as f32 / (2 * points) as f32, if i.is_multiple_of(2) { 1.0 } else { inner })
        };
        Self::Polygon((0..2 * points).map(corner).collect())
    }

    /// A plus sign; `half` is half the width of its bars.
    pub fn cross(half: f32) -> Self {
        let (h, l) = (half, 1.0);
        Self::Polygon(vec![
            [-h, -l],
            [h, -l],
            [h, -h],
            [l, -h],
            [l, h],
            [h, h],
            [h, l],
            [-h, l],
            [-h, h],
            [-l, h],
            [-l, -h],
            [-h, -h],
        ])
    }

    /// A heart: two arcs over a point, traced with `corners` straight pieces.
    pub fn heart(corners: usize) -> Self {
        let corner = |i: usize| {
            let t = TAU * i as f32 / corners as f32;
            let x = t.sin().powi(3);
            let y = 0.8125 * t.cos()
                - 0.3125 * (2.0 * t).cos()
                - 0.125 * (3.0 * t).cos()
                - 0.0625 * (4.0 * t).cos();
            [x, -y - 0.1]
        };
        Self::Polygon((0..corners).map(corner).collect())
    }
}

/// The point at `turn` of a full clockwise turn from the top.
fn on_circle(turn: f32, radius: f32) -> Point {
    let (sin, cos) = (TAU * turn).sin_cos();
    [radius * sin, -radius * cos]
}

/// The nearest of all edges; inside when a ray to the right crosses an odd number of them.
fn polygon_distance(corners: &[Point], p: Point) -> f32 {
    let (mut nearest, mut inside) = (f32::INFINITY, false);
    for (i, a) in corners.iter().enumerate() {
        let b = corners[(i + 1) % corners.len()];
        let (edge, to_p) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
        let along =
            (to_p[0] * edge[0] + to_p[1] * edge[1]) / (edge[0] * edge[0] + edge[1] * edge[1]);
        let along = along.clamp(0.0, 1.0);
        let away = [to_p[0] - along * edge[0], to_p[1] - along * edge[1]];
        nearest = nearest.min(away[0] * away[0] + away[1] * away[1]);
        if (a[1] > p[1]) != (b[1] > p[1]) && p[0] < a[0] + (p[1] - a[1]) * edge[0] / edge[1] {
            inside = !inside;
        }
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(outline: &Region, p: Point, expected: f32) {
        let found = outline.distance(p);
        assert!((found - expected).abs() < 1e-5, "{p:?}: {found}, expected {expected}");
    }

    #[test]
    fn distances_are_those_of_the_region() {
        near(&Region::Disc, [0.0, 0.0], -1.0);
        near(&Region::Disc, [3.0, 4.0], 4.0);
        near(&Region::Ring { inner: 0.5 }, [0.0, 0.0], 0.5);
        near(&Region::Ring { inner: 0.5 }, [0.75, 0.0], -0.25);
        let square = Region::Polygon(vec![[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]);
        near(&square, [0.0, 0.0], -1.0);
        near(&square, [0.0, 1.5], 0.5);
        near(&square, [4.0, 5.0], 5.0);
        assert!(Region::cross(0.3).distance([0.7, 0.7]) > 0.3);
        assert!(Region::cross(0.3).distance([0.7, 0.0]) < -0.2);
        assert!(Region::Moon { bite_at: 0.6, bite_radius: 0.9 }.distance([0.5, 0.0]) > 0.0);
    }

    #[test]
    fn every_polygon_encloses_its_middle() {
        for outline in
            [Region::regular(3), Region::square(), Region::star(5, 0.4), Region::heart(48)]
        {
            assert!(outline.distance([0.0, 0.0]) < -0.2);
            assert!(outline.distance([1.3, 1.3]) > 0.2);
        }
    }
}
