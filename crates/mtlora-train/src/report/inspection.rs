//! Shows what adapters have learned as a part of an HTML page.

use std::fmt::Write;
use std::path::Path;

use mtlora_core::{Eigenvalue, InspectedLayer, Inspection};
use mtlora_models::{ADAPTER_CONFIG_FILE, Checkpoint, PeftAdapter};

use super::Section;
use super::page::escape;

/// The side of the picture of the complex plane.
const PLANE: f64 = 360.0;
/// The margin for its labels.
const EDGE: f64 = 24.0;
/// Half the side of the smallest part of the plane that is shown.
const SMALLEST: f64 = 0.1;
/// The largest number of singular values that are drawn for a layer.
const BARS: usize = 32;
/// The height of the bars, and the width of a bar including its gap.
const BAR: [f64; 2] = [22.0, 6.0];

/// What the adapter in a run's folder has learned, or the reason why this is unknown. `None` if there is no adapter
/// (yet).
pub(super) fn section(folder: &Path, model: &Path) -> Option<Section> {
    if !folder.join(ADAPTER_CONFIG_FILE).exists() {
        return None;
    }
    // If the base model is not available, the page leaves out the norms of the weights.
    let base = Checkpoint::open(model).ok();
    let found = PeftAdapter::from_folder(folder).and_then(|adapter| adapter.inspect(base.as_ref()));
    Some(Section {
        title: "What the adapter has learned".to_string(),
        html: match found {
            Ok(found) => inspection_html(&found),
            Err(error) => format!("<p>{}</p>", escape(&error.to_string())),
        },
    })
}

/// The results of [`mtlora_core::inspect`] as an HTML fragment: a table of the layers with their singular values as
/// bars, and a plot of the eigenvalues of every `T` in the complex plane. In plain LoRA all of these eigenvalues are 1.
/// The colours are the CSS variables `--ink`, `--muted`, `--line` and `--c0` of the surrounding page.
pub(crate) fn inspection_html(found: &Inspection) -> String {
    let mut html = String::from(
        "<table>\n<thead><tr><th>layer</th><th class=\"number\">rank</th><th class=\"number\">norm</th>\
         <th class=\"number\">norm / |W|</th><th class=\"number\">effective rank</th><th style=\"padding-left: 1.5rem\">singular values</th>\
         <th class=\"number\">cond(T)</th><th class=\"number\">|T − I| / |I|</th></tr></thead>\n<tbody>\n",
    );
    for layer in &found.layers {
        row(&mut html, layer);
    }
    let _ = write!(
        html,
        "<tr><th scope=\"row\">all</th><td></td><td class=\"number\">{}</td><td class=\"number\">{}</td>\
         <td></td><td></td><td></td><td></td></tr>\n</tbody></table>\n",
        number(found.norm),
        optional(found.relative_norm)
    );
    if found
        .layers
        .iter()
        .any(|layer| layer.spectrum.transform.is_some())
    {
        plane(&mut html, found);
    }
    html
}

fn row(html: &mut String, layer: &InspectedLayer) {
    let spectrum = &layer.spectrum;
    let cell = |text: String| format!("<td class=\"number\">{text}</td>");
    let of_t = match &spectrum.transform {
        Some(t) => [number(t.condition), number(t.relative_distance)],
        None => ["–", "T = I"].map(str::to_string),
    };
    let _ = writeln!(
        html,
        "<tr><th scope=\"row\">{}</th>{}{}{}{}<td style=\"padding-left: 1.5rem\">{}</td>{}</tr>",
        escape(&layer.path),
        cell(spectrum.rank.to_string()),
        cell(number(spectrum.update.norm)),
        cell(optional(layer.relative_norm)),
        cell(number(spectrum.update.effective_rank)),
        bars(&spectrum.update.singular_values),
        of_t.map(cell).concat()
    );
}

/// Singular values as bars; the largest has the full height.
fn bars(values: &[f64]) -> String {
    let largest = values.first().copied().unwrap_or(0.0);
    let [height, step] = BAR;
    let shown = &values[..values.len().min(BARS)];
    let width = step * shown.len() as f64;
    let listed: Vec<String> = shown.iter().map(|value| number(*value)).collect();
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" \
         aria-label=\"singular values\"><title>{}</title>",
        listed.join(", ")
    );
    for (at, value) in shown.iter().enumerate() {
        // Every bar is high enough to be visible.
        let tall = if largest > 0.0 && *value > 0.0 {
            (height * value / largest).max(0.75)
        } else {
            0.0
        };
        let _ = write!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.2}\" width=\"{:.1}\" height=\"{tall:.2}\" fill=\"var(--c0)\"/>",
            at as f64 * step,
            height - tall,
            step - 1.5
        );
    }
    svg.push_str("</svg>");
    svg
}

/// A plot of the eigenvalues of every `T`, on a part of the complex plane that contains all of them and 1, the
/// eigenvalue of plain LoRA. The unit circle is drawn as far as it is visible.
fn plane(html: &mut String, found: &Inspection) {
    let values = found.layers.iter().flat_map(|layer| {
        let transform = layer.spectrum.transform.as_ref();
        transform.map_or(&[][..], |t| &t.eigenvalues).iter()
    });
    let mut real = [1.0_f64; 2];
    let mut imaginary = 0.0_f64;
    for value in values {
        real = [real[0].min(value.re), real[1].max(value.re)];
        imaginary = imaginary.max(value.im.abs());
    }
    // Both axes have the same scale, and there is a margin around the points.
    let reach = ((real[1] - real[0]) / 2.0).max(imaginary).max(SMALLEST) * 1.15;
    let middle = (real[0] + real[1]) / 2.0;
    let side = PLANE - 2.0 * EDGE;
    let x = |re: f64| (re - middle + reach) / (2.0 * reach) * side;
    let y = |im: f64| (reach - im) / (2.0 * reach) * side;
    let _ = write!(
        html,
        "<figure><figcaption>Eigenvalues of T</figcaption>\n<svg viewBox=\"0 0 {PLANE} {PLANE}\" \
         style=\"max-width: {PLANE}px\" role=\"img\" aria-label=\"eigenvalues of T in the complex plane\">\n\
         <svg x=\"{EDGE}\" y=\"{EDGE}\" width=\"{side}\" height=\"{side}\" style=\"width: {side}px\">\n\
         <g fill=\"none\" stroke=\"var(--line)\"><rect width=\"{side}\" height=\"{side}\"/>\
         <path d=\"M0 {0:.1}H{side}M{1:.1} 0V{side}\"/>\
         <circle cx=\"{1:.1}\" cy=\"{0:.1}\" r=\"{2:.1}\"/></g>\n",
        y(0.0),
        x(0.0),
        side / (2.0 * reach)
    );
    for layer in &found.layers {
        let Some(transform) = &layer.spectrum.transform else {
            continue;
        };
        for value in &transform.eigenvalues {
            let _ = writeln!(
                html,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"var(--c0)\" fill-opacity=\"0.5\"><title>{}: \
                 {}</title></circle>",
                x(value.re),
                y(value.im),
                escape(&layer.path),
                complex(*value)
            );
        }
    }
    let (one, zero) = (x(1.0), y(0.0));
    let _ = write!(
        html,
        "<path d=\"M{:.1} {zero:.1}h16M{one:.1} {:.1}v16\" stroke=\"var(--ink)\" stroke-width=\"1.5\" \
         fill=\"none\"><title>LoRA: 1</title></path>\n</svg>\n<g fill=\"var(--muted)\" font-size=\"12\">\
         <text x=\"{EDGE}\" y=\"{low}\">{}</text><text x=\"{far}\" y=\"{low}\" text-anchor=\"end\">{}</text>\
         <text x=\"{:.1}\" y=\"{low}\" text-anchor=\"middle\">real part</text>\
         <text x=\"{EDGE}\" y=\"{high}\">imaginary part up to ±{}; + marks 1, as in LoRA</text></g>\n\
         </svg></figure>\n",
        one - 8.0,
        zero - 8.0,
        number(middle - reach),
        number(middle + reach),
        PLANE / 2.0,
        number(reach),
        low = PLANE - EDGE + 16.0,
        high = EDGE - 8.0,
        far = PLANE - EDGE,
    );
}

fn complex(value: Eigenvalue) -> String {
    if value.im == 0.0 {
        number(value.re)
    } else {
        format!(
            "{} {} {} i",
            number(value.re),
            if value.im < 0.0 { "−" } else { "+" },
            number(value.im.abs())
        )
    }
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_string(), number)
}

fn number(value: f64) -> String {
    if value == 0.0 {
        "0".to_string()
    } else if !value.is_finite() {
        "∞".to_string()
    } else if (1e-3..1e4).contains(&value.abs()) {
        format!("{value:.3}")
    } else {
        format!("{value:.2e}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use burn::tensor::TensorData;
    use mtlora_core::{AdapterForm, AdapterMethod, AdapterValues, Structure, inspect};
    use quick_xml::Reader;
    use quick_xml::events::Event;

    use super::*;

    fn layer(structure: Structure) -> AdapterValues {
        let turn = TensorData::from([[0.0f32, -2.0], [2.0, 0.0]]);
        AdapterValues {
            a: TensorData::from([[1.0f32, 0.0, 0.0], [0.0, 1.0, 0.0]]),
            b: TensorData::from([[1.0f32, 0.0], [0.0, 0.5]]),
            further: AdapterMethod::from(structure).further(|_| turn.clone()),
            form: AdapterForm::new(structure, 1.0),
        }
    }

    fn html(structures: &[Structure]) -> String {
        let adapters = structures.iter().enumerate();
        let adapters: BTreeMap<String, AdapterValues> = adapters
            .map(|(at, structure)| (format!("layer.{at}.<q>"), layer(*structure)))
            .collect();
        inspection_html(&inspect(&adapters, &BTreeMap::new()).unwrap())
    }

    /// The number of elements of that name; fails if the fragment is not well formed.
    fn count(html: &str, wanted: &str) -> usize {
        let whole = format!("<div>{html}</div>");
        let mut reader = Reader::from_str(&whole);
        let mut found = 0;
        loop {
            match reader.read_event().unwrap() {
                Event::Start(tag) | Event::Empty(tag) => {
                    found += usize::from(tag.name().as_ref() == wanted);
                }
                Event::Eof => return found,
                _ => {}
            }
        }
    }

    #[test]
    fn every_layer_and_every_eigenvalue_is_there() {
        let html = html(&[Structure::Shim, Structure::Dtsm, Structure::Lora]);
        // Two eigenvalues for each of two layers, and the unit circle; two bars for each layer, and the frame of the
        // plane.
        assert_eq!(count(&html, "circle"), 5);
        assert_eq!(count(&html, "rect"), 7);
        assert_eq!(count(&html, "tr"), 1 + 3 + 1);
        assert!(html.contains("layer.0.&lt;q&gt;: 0 + 2.000 i"), "{html}");
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn plain_lora_has_no_plot_of_eigenvalues() {
        let html = html(&[Structure::Lora]);
        assert_eq!(count(&html, "figure"), 0);
        assert!(html.contains("T = I"));
    }
}
