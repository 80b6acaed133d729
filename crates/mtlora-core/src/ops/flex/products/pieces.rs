/// The output of the tasks' pieces, `[rows, width of the block]` each; those of one block are added up.
pub(super) fn assembled<'a>(
    [rows, columns]: [usize; 2],
    width: usize,
    blocks: impl Iterator<Item = &'a [Vec<f32>]>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let mut out = match bias {
        Some(bias) => bias.repeat(rows),
        None => vec![0.0; rows * columns],
    };
    for (block, parts) in blocks.enumerate() {
        let columns_of = block * width..columns.min((block + 1) * width);
        for part in parts {
            let rows = part.chunks_exact(columns_of.len());
            for (out, part) in out.chunks_exact_mut(columns).zip(rows) {
                let out = &mut out[columns_of.clone()];
                out.iter_mut().zip(part).for_each(|(out, x)| *out += x);
            }
        }
    }
    out
}
