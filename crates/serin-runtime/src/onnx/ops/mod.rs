//! The operators: one builder each, which checks the node and makes the kernel that runs.

mod broadcast;
mod cast;
mod categories;
mod elementwise;
mod features;
mod layout;
mod linear;
mod matmul;
mod reduce;
mod scores;
mod shapes;
mod svm;
mod trees;

use super::error::NodeFault;
use super::node::{Lowered, Node};

/// Lowers a node of the `ai.onnx` domain (or of `ai.onnx.ml`, when `ml` is set); `None` for an unknown operator.
pub(super) fn lower(node: &Node<'_, '_>, ml: bool) -> Option<Result<Lowered, NodeFault>> {
    if ml { lower_ml(node) } else { lower_onnx(node) }
}

fn lower_ml(node: &Node<'_, '_>) -> Option<Result<Lowered, NodeFault>> {
    Some(match node.proto.op_type {
        "ArrayFeatureExtractor" => layout::array_feature_extractor(node),
        "Binarizer" => features::binarizer(node),
        "CategoryMapper" => categories::category_mapper(node),
        "FeatureVectorizer" => features::feature_vectorizer(node),
        "Imputer" => features::imputer(node),
        "LabelEncoder" => categories::label_encoder(node),
        "LinearClassifier" => linear::classifier(node),
        "LinearRegressor" => linear::regressor(node),
        "Normalizer" => features::normalizer(node),
        "OneHotEncoder" => categories::one_hot_encoder(node),
        "SVMClassifier" => svm::classifier(node),
        "SVMRegressor" => svm::regressor(node),
        "Scaler" => features::scaler(node),
        "TreeEnsemble" => trees::ensemble(node),
        "TreeEnsembleClassifier" => trees::classifier(node),
        "TreeEnsembleRegressor" => trees::regressor(node),
        "ZipMap" => zip_map(node),
        _ => return None,
    })
}

fn lower_onnx(node: &Node<'_, '_>) -> Option<Result<Lowered, NodeFault>> {
    use elementwise::{Binary, Compare, Logic, Unary};
    use reduce::Reduction;
    Some(match node.proto.op_type {
        "Abs" => elementwise::unary(node, Unary::Abs),
        "Add" => elementwise::binary(node, Binary::Add),
        "And" => elementwise::logic(node, Logic::And),
        "ArgMax" => reduce::arg(node, true),
        "ArgMin" => reduce::arg(node, false),
        "Cast" => cast::cast(node),
        "Ceil" => elementwise::unary(node, Unary::Ceil),
        "Clip" => elementwise::clip(node),
        "Concat" => layout::concat(node),
        "Constant" => layout::constant(node),
        "ConstantOfShape" => layout::constant_of_shape(node),
        "Div" => elementwise::binary(node, Binary::Div),
        "Dropout" | "Identity" => shapes::identity(node),
        "Elu" => elementwise::unary(node, Unary::Elu),
        "Equal" => elementwise::compare(node, Compare::Equal),
        "Erf" => elementwise::unary(node, Unary::Erf),
        "Exp" => elementwise::unary(node, Unary::Exp),
        "Expand" => layout::expand(node),
        "Flatten" => shapes::flatten(node),
        "Floor" => elementwise::unary(node, Unary::Floor),
        "Gather" => layout::gather(node),
        "Gemm" => matmul::gemm(node),
        "Greater" => elementwise::compare(node, Compare::Greater),
        "GreaterOrEqual" => elementwise::compare(node, Compare::GreaterOrEqual),
        "IsInf" => elementwise::is_inf(node),
        "IsNaN" => elementwise::is_nan(node),
        "LeakyRelu" => elementwise::unary(node, Unary::LeakyRelu),
        "Less" => elementwise::compare(node, Compare::Less),
        "LessOrEqual" => elementwise::compare(node, Compare::LessOrEqual),
        "Log" => elementwise::unary(node, Unary::Log),
        "LogSoftmax" => reduce::softmax(node, true),
        "MatMul" => matmul::matmul(node),
        "Max" => elementwise::variadic(node, Binary::Max),
        "Mean" => elementwise::mean(node),
        "Min" => elementwise::variadic(node, Binary::Min),
        "Mul" => elementwise::binary(node, Binary::Mul),
        "Neg" => elementwise::unary(node, Unary::Neg),
        "Not" => elementwise::not(node),
        "Or" => elementwise::logic(node, Logic::Or),
        "Pow" => elementwise::pow(node),
        "Reciprocal" => elementwise::unary(node, Unary::Reciprocal),
        "ReduceL1" => reduce::reduce(node, Reduction::L1),
        "ReduceL2" => reduce::reduce(node, Reduction::L2),
        "ReduceLogSum" => reduce::reduce(node, Reduction::LogSum),
        "ReduceLogSumExp" => reduce::reduce(node, Reduction::LogSumExp),
        "ReduceMax" => reduce::reduce(node, Reduction::Max),
        "ReduceMean" => reduce::reduce(node, Reduction::Mean),
        "ReduceMin" => reduce::reduce(node, Reduction::Min),
        "ReduceProd" => reduce::reduce(node, Reduction::Prod),
        "ReduceSum" => reduce::reduce(node, Reduction::Sum),
        "ReduceSumSquare" => reduce::reduce(node, Reduction::SumSquare),
        "Relu" => elementwise::unary(node, Unary::Relu),
        "Reshape" => shapes::reshape(node),
        "Round" => elementwise::unary(node, Unary::Round),
        "Shape" => shapes::shape(node),
        "Sigmoid" => elementwise::unary(node, Unary::Sigmoid),
        "Sign" => elementwise::unary(node, Unary::Sign),
        "Slice" => layout::slice(node),
        "Softmax" => reduce::softmax(node, false),
        "Softplus" => elementwise::unary(node, Unary::Softplus),
        "Split" => layout::split(node),
        "Sqrt" => elementwise::unary(node, Unary::Sqrt),
        "Squeeze" => shapes::squeeze(node),
        "Sub" => elementwise::binary(node, Binary::Sub),
        "Sum" => elementwise::variadic(node, Binary::Add),
        "Tanh" => elementwise::unary(node, Unary::Tanh),
        "Tile" => layout::tile(node),
        "TopK" => reduce::top_k(node),
        "Transpose" => layout::transpose(node),
        "Unsqueeze" => shapes::unsqueeze(node),
        "Where" => elementwise::select(node),
        "Xor" => elementwise::logic(node, Logic::Xor),
        _ => return None,
    })
}

/// `ZipMap` makes a list of maps from class to score. Here it stays the tensor of scores `[rows, classes]`, and the
/// classes of its columns are kept beside it.
fn zip_map(node: &Node<'_, '_>) -> Result<Lowered, NodeFault> {
    node.arity(1, 1, "1")?;
    let labels = node.labels("classlabels_strings", "classlabels_int64s")?;
    super::node::extent("columns of the scores", node.arg(0)?.ty.features(), labels.len())?;
    Ok(Lowered::Alias { input: 0, classes: Some(std::sync::Arc::new(labels)) })
}
