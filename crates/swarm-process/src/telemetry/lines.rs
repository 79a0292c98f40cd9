//! How events become lines of the log.
//!
//! An event with the field `banner` is told to people by the lines of that field alone, in the words that operators and
//! their tools know; none when it is empty. Programs get its message and its other fields, and the trace that it is in.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use opentelemetry::trace::{SpanContext, TraceContextExt};
use serde_json::{Map, Value};
use tracing::{
    Dispatch, Event, Subscriber,
    dispatcher::{self, WeakDispatch},
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    field::RecordFields,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{self, DefaultFields, Format, Full, Json, JsonFields, Writer},
    },
    registry::LookupSpan,
};

const BANNER: &str = "banner";
/// An event that is in no span may tell its trace itself.
const TRACE_ID: &str = "trace_id";

/// The subscriber whose spans are in traces, once there is one.
pub(super) type Shown = Arc<OnceLock<WeakDispatch>>;

/// The spans of this thread's subscriber are in traces.
pub(super) fn show_traces_of_this(shown: &Shown) {
    dispatcher::get_default(|dispatch| {
        shown.get_or_init(|| Dispatch::downgrade(dispatch));
    });
}

/// Lines for people.
pub(super) fn text<S, W>(writer: W, colours: bool) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    let format = TextLines(format::format().with_target(false).with_ansi(colours));
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    layer.fmt_fields(TextFields).event_format(format)
}

/// One JSON object a line. Events within the spans of a trace have its id.
pub(super) fn json<S, W>(writer: W, shown: Shown) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    let format = JsonLines { object: format::format().json(), shown };
    tracing_subscriber::fmt::layer().with_writer(writer).fmt_fields(JsonFields::new()).event_format(format)
}

/// An event's banner, if it has one.
fn banner(fields: &impl RecordFields) -> Option<String> {
    let mut found = Banner(None);
    fields.record(&mut found);
    found.0
}

struct Banner(Option<String>);

impl Visit for Banner {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == BANNER {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// No field of an event with a banner; of all others, all.
struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        match banner(&fields) {
            Some(_) => Ok(()),
            None => DefaultFields::new().format_fields(writer, fields),
        }
    }
}

struct TextLines(Format<Full>);

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(banner) = banner(event) else { return self.0.format_event(context, writer, event) };
        // Time and level stand before each of its lines.
        let mut head = String::new();
        self.0.format_event(context, Writer::new(&mut head), event)?;
        let head = head.trim_end_matches('\n');
        banner.lines().try_for_each(|line| writeln!(writer, "{head}{line}"))
    }
}

struct JsonLines {
    object: Format<Json>,
    shown: Shown,
}

impl JsonLines {
    /// The innermost span of the event that is in a trace.
    fn span<S, N>(&self, context: &FmtContext<'_, S, N>, event: &Event<'_>) -> Option<SpanContext>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'w> FormatFields<'w> + 'static,
    {
        // What they log while they make a span cannot ask for that span.
        if event.metadata().target().starts_with("opentelemetry") {
            return None;
        }
        let subscriber = self.shown.get()?.upgrade()?;
        let traced = context.event_scope()?.find_map(|span| {
            let traced = tracing_opentelemetry::get_otel_context(&span.id(), &subscriber)?;
            Some(traced.span().span_context().clone())
        });
        traced.filter(SpanContext::is_valid)
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let has = |field: &str| event.metadata().fields().field(field).is_some();
        let span = self.span(context, event);
        if span.is_none() && !has(BANNER) && !has(TRACE_ID) {
            return self.object.format_event(context, writer, event);
        }
        let mut text = String::new();
        self.object.format_event(context, Writer::new(&mut text), event)?;
        let mut object: Map<String, Value> = serde_json::from_str(&text).map_err(|_| fmt::Error)?;
        if let Some(Value::Object(fields)) = object.get_mut("fields") {
            fields.remove(BANNER);
            if let Some(id) = fields.remove(TRACE_ID) {
                object.insert(TRACE_ID.into(), id);
            }
        }
        if let Some(span) = span {
            object.insert(TRACE_ID.into(), span.trace_id().to_string().into());
            object.insert("span_id".into(), span.span_id().to_string().into());
        }
        writeln!(writer, "{}", Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
