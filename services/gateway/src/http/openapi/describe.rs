//! How the document is put together of operations.

use std::collections::BTreeMap;

use utoipa::{
    ToSchema,
    openapi::{
        ComponentsBuilder, Content, HttpMethod, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder,
        PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Schema,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::Type,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

const JSON: &str = "application/json";
/// Statuses of whatever takes a body and uses the model.
pub(super) const ASKED: [(u16, &str); 11] = [
    (400, "the body is not JSON, a field is wrong or not served, or the prompt does not fit"),
    (401, "no key, or one that is not known"),
    (403, "the key is not for this model, or the gateway was called by a name that it does not know"),
    (404, "another model is served"),
    (408, "the body came too slowly"),
    (413, "the body is too large"),
    (415, "the body is not said to be JSON, or is compressed"),
    (429, "too many requests: try again after Retry-After seconds"),
    (500, "an internal error"),
    (503, "the swarm cannot answer now"),
    (504, "something took longer than its bound"),
];
/// Statuses of what only tells.
pub(super) const SHOWN: [(u16, &str); 2] = [ASKED[1], ASKED[2]];

/// One operation of the document.
pub(super) struct Described {
    method: HttpMethod,
    path: &'static str,
    operation: OperationBuilder,
    /// What 200 may carry.
    answers: Vec<(&'static str, Content)>,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Described {
    /// `path` as in OpenAPI: `{id}`.
    pub(super) fn get(path: &'static str, tag: &str, summary: &str) -> Self {
        Self::new(HttpMethod::Get, path, tag, summary)
    }

    /// With a body of JSON.
    pub(super) fn post<T: ToSchema>(path: &'static str, tag: &str, summary: &str) -> Self {
        let mut described = Self::new(HttpMethod::Post, path, tag, summary);
        let content = described.content::<T>();
        let body = RequestBodyBuilder::new().content(JSON, content).required(Some(Required::True)).build();
        described.operation = described.operation.request_body(Some(body));
        described
    }

    fn new(method: HttpMethod, path: &'static str, tag: &str, summary: &str) -> Self {
        let operation = OperationBuilder::new().tag(tag).summary(Some(summary));
        Self { method, path, operation, answers: vec![], schemas: vec![] }
    }

    /// 200 with JSON.
    pub(super) fn answers<T: ToSchema>(mut self) -> Self {
        let content = self.content::<T>();
        self.answers.push((JSON, content));
        self
    }

    /// 200 with a text of another type.
    pub(super) fn tells(mut self, kind: &'static str, what: &str) -> Self {
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some(what));
        self.answers.push((kind, Content::new(Some(Schema::from(text.build())))));
        self
    }

    /// Statuses with bodies of this form.
    pub(super) fn fails<T: ToSchema>(mut self, statuses: &[(u16, &str)]) -> Self {
        let content = self.content::<T>();
        for (status, when) in statuses {
            let response = ResponseBuilder::new().description(*when).content(JSON, content.clone());
            self.operation = self.operation.response(status.to_string(), response.build());
        }
        self
    }

    /// A part of the path.
    pub(super) fn in_path(mut self, name: &str, what: &str) -> Self {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
        let text = Schema::from(ObjectBuilder::new().schema_type(Type::String).build());
        let parameter = parameter.required(Required::True).description(Some(what)).schema(Some(text));
        self.operation = self.operation.parameter(parameter.build());
        self
    }

    /// Nobody needs a key for it.
    pub(super) fn open(mut self) -> Self {
        self.operation = self.operation.security(SecurityRequirement::default());
        self
    }

    fn content<T: ToSchema>(&mut self) -> Content {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        Content::new(Some(Ref::from_schema_name(T::name())))
    }
}

/// The document of these operations.
pub(super) fn document(operations: impl Iterator<Item = Described>) -> OpenApi {
    let mut schemas: BTreeMap<String, RefOr<Schema>> = BTreeMap::new();
    let mut paths = PathsBuilder::new().build();
    for described in operations {
        let mut answer = ResponseBuilder::new().description("the answer");
        for (kind, content) in described.answers {
            answer = answer.content(kind, content);
        }
        schemas.extend(described.schemas);
        let operation = described.operation.response("200", answer.build()).build();
        paths.add_path_operation(described.path, vec![described.method], operation);
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let header = ApiKey::Header(ApiKeyValue::new("x-api-key"));
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .security_scheme("header", SecurityScheme::ApiKey(header));
    let info = InfoBuilder::new()
        .title("llama-swarm gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "One language model, served by a swarm of machines. Keys are needed only where the gateway has some. \
             Unknown fields are ignored and named in the header x-llama-swarm-ignored.",
        ));
    let none: [&str; 0] = [];
    let needs = [
        SecurityRequirement::default(),
        SecurityRequirement::new("bearer", none),
        SecurityRequirement::new("header", none),
    ];
    OpenApiBuilder::new()
        .info(info.build())
        .paths(paths)
        .components(Some(components.build()))
        .security(Some(needs))
        .build()
}
