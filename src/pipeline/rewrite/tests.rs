//! Rewritten models beside the originals, both computed by the reference provider.

use proptest::prelude::*;

use super::super::goldens::models;
use super::super::pack::{ModelPack, Normalisation};
use super::super::probes;
use super::super::runtime::{Provider, Runtime, Tensor as Input};
use super::messages::Attribute;
use super::*;

const SIDE: usize = 6;

/// Weights of `sides` under `name`, different from each other.
fn weights(name: &str, sides: &[usize]) -> Tensor {
    let count: usize = sides.iter().product();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let value = |at: usize| ((at * 37 + name.len() * 11) % 101) as f32 / 101.0 - 0.45;
    let sides: Vec<i64> = sides.iter().map(|side| i64::try_from(*side).unwrap()).collect();
    Tensor::floats(name, &sides, &(0..count).map(value).collect::<Vec<_>>())
}

/// A `ValueInfoProto` of floats: `name`, any batch, `channels`, [`SIDE`] twice.
fn value(name: &str, channels: usize) -> Bytes {
    let field = |number: u8, content: &[u8]| {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    };
    let side = |side: usize| field(1, &[0x08, u8::try_from(side).unwrap()]);
    let shape = [field(1, &field(2, b"n")), side(channels), side(SIDE), side(SIDE)].concat();
    let tensor = [vec![0x08, 1], field(2, &shape)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat().into()
}

fn convolution(input: &str, output: &str, group: usize) -> Node {
    let names = ["", "/w", "/b"]
        .map(|part| if part.is_empty() { input.to_owned() } else { output.to_owned() + part });
    let mut node = Node::new("Conv", names.to_vec(), output.to_owned());
    node.attribute.push(Attribute::number("group", i64::try_from(group).unwrap()));
    node
}

/// Convolution, slopes, convolution in `groups` of `places`, slopes, convolution.
fn model(groups: usize, places: usize) -> Model {
    let channels = groups * places;
    let bend = |input: &str, output: &str| {
        Node::new("PRelu", vec![input.to_owned(), output.to_owned() + "/s"], output.to_owned())
    };
    let tensors = [
        weights("a/w", &[channels, 3, 1, 1]),
        weights("a/b", &[channels]),
        weights("b/s", &[channels, 1, 1]),
        weights("c/w", &[channels, places, 3, 3]),
        weights("c/b", &[channels]),
        weights("d/s", &[channels, 1, 1]),
        weights("e/w", &[5, channels, 1, 1]),
        weights("e/b", &[5]),
    ];
    Model {
        ir_version: 6,
        opset_import: vec![Bytes::from_static(&[0x10, 11])],
        graph: Some(Graph {
            name: "g".to_owned(),
            node: vec![
                convolution("x", "a", 1),
                bend("a", "b"),
                convolution("b", "c", groups),
                bend("c", "d"),
                convolution("d", "e", 1),
            ],
            initializer: tensors.iter().map(|tensor| tensor.encode_to_vec().into()).collect(),
            input: vec![value("x", 3)],
            output: vec![Bytes::from_static(&[0x0A, 1, b'e'])],
            ..Graph::default()
        }),
        ..Model::default()
    }
}

/// All outputs of the reference for some input, one after the other.
fn computed(model: &[u8], input: &[f32]) -> Vec<f32> {
    outputs(model, input).concat()
}

fn outputs(model: &[u8], input: &[f32]) -> Vec<Vec<f32>> {
    let runtime = Runtime::load(&models(), None).unwrap();
    let mut session = runtime.session(model, Provider::Cpu, 1).unwrap();
    let side = (input.len() / 3).isqrt();
    let mut tensor = Input::new([1, 3, side, side]);
    tensor.values_mut().copy_from_slice(input);
    let copied = |outputs: &[&[f32]]| outputs.iter().map(|values| values.to_vec()).collect();
    tensor.run(&mut session, copied).unwrap()
}

fn assert_same(model: &[u8], input: &[f32]) {
    let rewrite = rewritten(model).unwrap();
    let (before, after) = (computed(model, input), computed(&rewrite, input));
    let most = before.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    assert!(before.len() == after.len() && most > 0.0);
    for (b, a) in before.iter().zip(after) {
        assert!((b - a).abs() <= 1e-4 * most, "{b} became {a}");
    }
    assert_eq!(rewritten(&rewrite), None, "nothing is left to do");
}

/// Numbers between -0.5 and 0.6 for an input of `side`.
fn input(side: usize) -> Vec<f32> {
    weights("x", &[3 * side * side]).values()
}

#[test]
fn the_models_compute_what_they_computed() {
    let pack = ModelPack::load(&models().join("research")).unwrap();
    let crop = &probes::crops()[0];
    let samples: Vec<f32> = crop.iter().map(|sample| f32::from(*sample) / 127.5 - 1.0).collect();
    assert_same(&pack.recogniser_model, &samples);
    assert_same(&pack.detector_model, &input(96));
}

#[test]
fn a_model_given_pixels_computes_what_it_computed() {
    let pack = ModelPack::load(&models().join("research")).unwrap();
    let (model, side) = (&pack.detector_model, 64);
    let normalisation = Normalisation { mean: 127.5, std: 128.0 };
    let byte = |at: usize| u8::try_from(at * 31 % 251).unwrap();
    let pixels: Vec<u8> = (0..side * side * 3).map(byte).collect();
    let plane = |channel: usize| pixels.iter().skip(channel).step_by(3);
    let planes = [0, 1, 2].into_iter().flat_map(plane);
    let wanted = computed(
        model,
        &planes.map(|byte| normalisation.apply(f32::from(*byte))).collect::<Vec<_>>(),
    );
    let runtime = Runtime::load(&models(), None).unwrap();
    let given = of_pixels(model, side, normalisation).unwrap();
    let mut session = runtime.session(&given, Provider::Cpu, 1).unwrap();
    let mut input = Input::<u8>::new([1, side, side, 3]);
    input.values_mut().copy_from_slice(&pixels);
    let found = input.run(&mut session, |outputs| outputs.concat()).unwrap();
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-4, "{wanted} became {found}");
    }
    let mut other = Input::<u8>::new([1, side + 32, side + 32, 3]);
    assert!(other.run(&mut session, |_| ()).is_err(), "the side is fixed");
}

#[test]
fn convolutions_of_one_input_are_joined() {
    let family = |channels: &[usize], opset: u8, edit: fn(&mut Graph)| {
        let name = |at: usize| ["p", "q", "r"][at];
        let mut graph =
            Graph { name: "g".to_owned(), input: vec![value("x", 3)], ..Graph::default() };
        for (at, outputs) in channels.iter().enumerate() {
            graph.node.push(convolution("x", name(at), 1));
            graph.output.push(vec![0x0A, 1, name(at).as_bytes()[0]].into());
            for (part, sides) in [("/w", &[*outputs, 3, 1, 1][..]), ("/b", &[*outputs])] {
                let tensor = weights(&(name(at).to_owned() + part), sides);
                graph.initializer.push(tensor.encode_to_vec().into());
            }
        }
        edit(&mut graph);
        let opset_import = vec![vec![0x10, opset].into()];
        Model { ir_version: 6, graph: Some(graph), opset_import, ..Model::default() }
            .encode_to_vec()
    };
    for channels in [&[2, 8, 20][..], &[1, 1], &[20, 28]] {
        assert_same(&family(channels, 11, |_| ()), &input(SIDE));
    }
    assert_eq!(rewritten(&family(&[16, 32], 11, |_| ())), None, "nothing is gained");
    assert_eq!(rewritten(&family(&[2, 8], 13, |_| ())), None, "Split differs there");
    let strides: fn(&mut Graph) = |graph| graph.node[1].attribute.push(Attribute::number("s", 2));
    assert_eq!(rewritten(&family(&[2, 8], 11, strides)), None, "they do not do the same");
}

#[test]
fn groups_of_two_to_four_are_taken_apart() {
    for (groups, places) in [(16, 2), (17, 3), (32, 4)] {
        assert_same(&model(groups, places).encode_to_vec(), &input(SIDE));
    }
}

#[test]
fn what_is_padded_stays_in_floats() {
    let plain = model(16, 2);
    let zeros = |channels: usize| vec![0; 4 * 3 * channels];
    // The first convolution is taken apart: both parts look at three channels.
    assert!(quantised(&plain.encode_to_vec(), &zeros(3 + 3 + 32), &[]).is_ok());
    let mut padded = plain;
    let pads = Attribute::numbers("pads", vec![1; 4]);
    padded.graph.as_mut().unwrap().node[0].attribute.push(pads);
    let padded = padded.encode_to_vec();
    assert_eq!(quantised(&padded, &zeros(3 + 3 + 32), &[]), Err(QuantiseError::Ranges));
    assert!(quantised(&padded, &zeros(32), &[]).is_ok());
}

/// What the pointwise convolutions of `model` meet on `input`, as a pack's file has it.
fn ranges(model: &[u8], input: &[f32]) -> Vec<u8> {
    let Exposed { model, places } = exposed(model).unwrap();
    let shown = outputs(&model, input);
    let mut bytes = Vec::new();
    for (output, channels) in places {
        let pixels = shown[output].len() / channels;
        let planes = || shown[output].chunks_exact(pixels);
        let fold = |from: f32, by: fn(f32, f32) -> f32| {
            planes().map(|plane| plane.iter().copied().fold(from, by)).collect()
        };
        #[expect(clippy::cast_precision_loss, reason = "some dozens")]
        let mean = |plane: &[f32]| plane.iter().sum::<f32>() / pixels as f32;
        let range = Range {
            least: fold(f32::INFINITY, f32::min),
            greatest: fold(f32::NEG_INFINITY, f32::max),
            mean: planes().map(mean).collect(),
        };
        range.write(&mut bytes);
    }
    bytes
}

#[test]
fn what_stands_side_by_side_is_rounded_before_it_does() {
    let (plain, input) = (model(16, 2).encode_to_vec(), input(SIDE));
    let rounded = quantised(&plain, &ranges(&plain, &input), &[]).unwrap();
    let graph = Model::decode(&*rounded).unwrap().graph.unwrap();
    let of_kind = |kind: &str| graph.node.iter().filter(|node| node.op_type == kind).count();
    assert_eq!((of_kind("Concat"), of_kind("DequantizeLinear")), (1, 4));
    let concat = graph.node.iter().find(|node| node.op_type == "Concat").unwrap();
    let maker = |name: &String| graph.node.iter().find(|node| node.output.contains(name)).unwrap();
    assert!(concat.input.iter().all(|name| maker(name).op_type == "DequantizeLinear"));
    let (wanted, found) = (computed(&plain, &input), computed(&rounded, &input));
    let most = wanted.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    assert_ne!(found, wanted, "nothing was rounded");
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!((found - wanted).abs() < most / 50.0, "{wanted} became {found} of {most}");
    }
}

#[test]
fn what_does_not_fit_is_left_alone() {
    assert_eq!(rewritten(&model(16, 1).encode_to_vec()), None, "depthwise already");
    assert_eq!(rewritten(&model(8, 2).encode_to_vec()), None, "too few groups");
    assert_eq!(rewritten(&model(16, 5).encode_to_vec()), None, "too large groups");
    let edits: [fn(&mut Graph); 7] = [
        |graph| graph.output.push(Bytes::from_static(&[0x0A, 1, b'b'])),
        |graph| graph.node.push(Node::new("Relu", vec!["c".to_owned()], "f".to_owned())),
        |graph| graph.node[1].op_type = "Relu".to_owned(),
        |graph| graph.node[4] = convolution("d", "e", 2),
        |graph| graph.node[4].output.clear(),
        |graph| graph.node[0].attribute.push(Bytes::from_static(&[0xA0, 1, 5])),
        |graph| {
            let mut short = weights("c/w", &[32, 2, 3, 3]);
            short.raw_data = short.raw_data.slice(4..);
            graph.initializer[3] = short.encode_to_vec().into();
        },
    ];
    for (number, edit) in edits.iter().enumerate() {
        let mut edited = model(16, 2);
        edit(edited.graph.as_mut().unwrap());
        assert_eq!(rewritten(&edited.encode_to_vec()), None, "edit {number}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(at in 0_usize..2_000, byte: u8) {
        let mut bytes = model(16, 2).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = rewritten(&bytes);
        let _ = rewritten(&bytes[..at]);
        let _ = quantised(&bytes, &[0; 4 * 3 * (3 + 3 + 32)], &[]);
        let _ = exposed(&bytes);
        let _ = of_pixels(&bytes, 32, Normalisation { mean: 0.0, std: 1.0 });
    }
}
