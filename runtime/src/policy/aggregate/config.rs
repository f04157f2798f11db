//! The shape of the config.

use crate::model::schema::{Field, HEADER, Kind, MILLIS, Rule, STR, TEXT};

const BYTES: Kind = Kind::Int { min: 1, max: 1 << 30 };

pub const FIELDS: &[Field] = &[
    Field::new("parts", Kind::List(&Kind::Record(PART)), "The calls, in the order in which they are merged.")
        .required()
        .extension(),
    Field::new("deadline", MILLIS, "Milliseconds for everything.").default("10000").extension(),
    Field::new("variants", Kind::List(&Kind::Record(VARIANT)), "Other shapes for some clients; the first that fits.")
        .extension(),
    Field::new(
        "fields",
        Kind::List(&TEXT),
        "Places that `?fields=` may choose from: names or JSON pointers. Without the list the argument means nothing.",
    )
    .extension(),
    Field::new("forward_headers", Kind::List(&HEADER), "Headers of the request that every part is sent.")
        .default(r#"["Accept-Language","Traceparent","Tracestate"]"#)
        .extension(),
    Field::new(
        "response_headers",
        Kind::List(&Kind::Record(RESPONSE_HEADER)),
        "Headers of the parts that the answer has. `Cache-Control` and `Vary` need no rule.",
    )
    .extension(),
    Field::new(
        "status_header",
        HEADER,
        "The header of the answer that says what became of each part; null for none.",
    )
    .default("\"GW-Parts\"")
    .extension(),
    Field::new("max_calls", Kind::Int { min: 1, max: 1000 }, "Most calls for one request.")
        .default("50")
        .extension(),
    Field::new("max_bytes", BYTES, "Most bytes of all parts' bodies together.").default("8388608").extension(),
    Field::new("max_depth", Kind::Int { min: 1, max: 128 }, "How deep a part's lists and objects may nest.")
        .default("64")
        .extension(),
];

const PART: &[Field] = &[
    Field::new("name", TEXT, "A word, by which other parts refer to it: `$(parts.NAME.member)`.")
        .required()
        .extension(),
    Field::new("service", Kind::Ref("services"), "The service that is asked.").required().extension(),
    Field::new("method", Kind::Str(Rule::Method), "The method.").default("\"GET\"").extension(),
    Field::new("unsafe", Kind::Bool, "Whether the method may be one that changes something.")
        .default("false")
        .extension(),
    Field::new("path", TEXT, "A template of path and query. Values in it are percent-encoded.")
        .required()
        .extension(),
    Field::new("query", Kind::Map(&STR), "Further arguments of the query, as templates; empty ones are left out.")
        .extension(),
    Field::new("headers", Kind::Map(&STR), "Headers, as templates; empty ones are left out.").extension(),
    Field::new("forward_headers", Kind::List(&HEADER), "Instead of the list that holds for every part.")
        .extension(),
    Field::new(
        "body",
        Kind::Any,
        "A JSON body. A text in it that is one `$(...)` becomes the value itself, others are templates of text.",
    )
    .extension(),
    Field::new("timeout", MILLIS, "Milliseconds for each call; else what the deadline leaves.").extension(),
    Field::new("max_bytes", BYTES, "Most bytes of an answer.").default("1048576").extension(),
    Field::new(
        "for_each",
        TEXT,
        "A template that is one `$(...)` and gives a list: the part is asked once for each item, which templates know \
         as `item`. Its value is the list of answers.",
    )
    .extension(),
    Field::new("max_items", Kind::Int { min: 1, max: 1000 }, "A longer list fails the part.")
        .default("20")
        .extension(),
    Field::new("concurrency", Kind::Int { min: 1, max: 100 }, "How many items are asked for at the same time.")
        .default("5")
        .extension(),
    Field::new("required", Kind::Bool, "Whether the request fails if the part does; true unless there is a `fallback`.")
        .extension(),
    Field::new(
        "fallback",
        Kind::Any,
        "What stands for a part that failed: `null`, `omit`, `stale` (its last good answer, else nothing), or a list, an \
         object, a number or a boolean that stands for itself. `fail` is none.",
    )
    .default("\"fail\"")
    .extension(),
    Field::new(
        "cache_for",
        Kind::Int { min: 1, max: 86_400 },
        "Seconds for which a good answer is given again to exactly the same call, caller included, instead of asking. Answers \
         that say `no-store`, `no-cache` or `private`, or set cookies, are not kept.",
    )
    .extension(),
    Field::new("stale_for", Kind::Int { min: 1, max: 2_592_000 }, "Seconds for which `stale` remembers.")
        .default("3600")
        .extension(),
    Field::new(
        "pass_status",
        Kind::List(&Kind::Int { min: 400, max: 599 }),
        "Statuses of the part that become the answer's own, instead of 502.",
    )
    .extension(),
    Field::new("from", TEXT, "A JSON pointer to what is taken of the answer; else all of it.").extension(),
    Field::new(
        "select",
        Kind::List(&TEXT),
        "Names or JSON pointers of what is kept. In lists these and the next two mean every item.",
    )
    .extension(),
    Field::new("drop", Kind::List(&TEXT), "Names or JSON pointers of what is not kept.").extension(),
    Field::new("rename", Kind::Map(&TEXT), "Names or JSON pointers, and the names instead.").extension(),
    Field::new("index_by", TEXT, "Makes an object of a list of objects, by this member of each.").extension(),
    Field::new("into", TEXT, "A JSON pointer to where it goes; else its members become those of the answer.")
        .extension(),
    Field::new("concat", Kind::Bool, "Whether a list is added to the list that is there already.")
        .default("false")
        .extension(),
    Field::new(
        "on_conflict",
        Kind::Enum(&["error", "first", "last", "deep"]),
        "What holds where something is there already: an answer 502, what was there, this part, or objects merged all \
         the way down.",
    )
    .default("\"error\"")
    .extension(),
];

const VARIANT: &[Field] = &[
    Field::new(
        "when",
        Kind::Record(crate::policy::when::FIELDS),
        "Whom it is for: everything that is said must hold.",
    )
    .extension(),
    Field::new("select", Kind::List(&TEXT), "JSON pointers of what the answer keeps.").extension(),
    Field::new("drop", Kind::List(&TEXT), "JSON pointers of what it does not keep.").extension(),
    Field::new("rename", Kind::Map(&TEXT), "JSON pointers, and the names instead.").extension(),
];

const RESPONSE_HEADER: &[Field] = &[
    Field::new("name", HEADER, "The header.").required().extension(),
    Field::new("from", Kind::List(&TEXT), "The parts that it is taken of; else all.").extension(),
    Field::new(
        "combine",
        Kind::Enum(&["first", "last", "append", "min", "max"]),
        "Which of several parts counts: by their order, all of them, or the least or greatest number.",
    )
    .default("\"first\"")
    .extension(),
];
