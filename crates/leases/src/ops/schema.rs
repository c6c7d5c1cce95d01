//! Keys, indexes and billing as requests describe tables with them.

use std::collections::{BTreeMap, BTreeSet};

use hydrant_wire::shape::{Integer, List, Structure, Text};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::checks;
use crate::error::Error;
use crate::table::{Index, KeyKind, KeySchema, Projected, State, Throughput};

/// Most indexes of a table (AWS's default quota).
pub(super) const INDEXES_MAX: usize = 20;
/// Most attributes that all indexes of a table name (AWS).
const PROJECTED_NAMES_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AttributeDefinition<'a> {
    #[serde(borrow)]
    attribute_name: Option<Text<'a>>,
    #[serde(borrow)]
    attribute_type: Option<Text<'a>>,
}

/// `AttributeDefinitions`.
pub(super) type AttributeDefinitions<'a> = List<Structure<AttributeDefinition<'a>>>;

/// The types of attributes by name.
pub(super) fn attributes(
    list: Option<&AttributeDefinitions<'_>>,
) -> Result<BTreeMap<String, KeyKind>, Error> {
    let mut found = BTreeMap::new();
    for one in list.map(|list| list.0.as_slice()).unwrap_or_default() {
        let name = checks::required(
            one.0.attribute_name.as_ref(),
            "attributeDefinitions.member.attributeName",
        )?;
        let at = "attributeDefinitions.member.attributeType";
        let kind = checks::required(one.0.attribute_type.as_ref(), at)?;
        let kind = match checks::one_of(Some(kind), at, &["B", "N", "S"])? {
            "B" => KeyKind::B,
            "N" => KeyKind::N,
            _ => KeyKind::S,
        };
        if found.insert(name.0.clone().into_owned(), kind).is_some() {
            return Err(Error::validation(format!(
                "Cannot add multiple definitions for the same attribute: {}",
                &**name
            )));
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct KeySchemaElement<'a> {
    #[serde(borrow)]
    attribute_name: Option<Text<'a>>,
    #[serde(borrow)]
    key_type: Option<Text<'a>>,
}

/// `KeySchema`.
pub(super) type Keys<'a> = List<Structure<KeySchemaElement<'a>>>;

/// A partition key, and a sort key behind it if there is one; both of known type.
pub(super) fn keys(
    list: Option<&Keys<'_>>,
    attributes: &BTreeMap<String, KeyKind>,
) -> Result<KeySchema, Error> {
    let list = checks::required(list, "keySchema")?;
    let mut names = Vec::new();
    for (n, one) in list.0.iter().enumerate() {
        let name =
            checks::required(one.0.attribute_name.as_ref(), "keySchema.member.attributeName")?;
        let at = "keySchema.member.keyType";
        let kind = checks::required(one.0.key_type.as_ref(), at)?;
        let kind = checks::one_of(Some(kind), at, &["HASH", "RANGE"])?;
        match (n, kind) {
            (0, "HASH") | (1, "RANGE") => names.push(name.0.clone().into_owned()),
            (0, _) => {
                return Err(Error::validation(
                    "Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
                ));
            }
            _ => {
                return Err(Error::validation(
                    "Invalid KeySchema: The second KeySchemaElement is not a RANGE key type",
                ));
            }
        }
    }
    let mut names = names.into_iter();
    let hash = names.next().ok_or_else(|| {
        Error::validation(
            "1 validation error detected: Value '[]' at 'keySchema' failed to satisfy constraint: \
             Member must have length greater than or equal to 1",
        )
    })?;
    let range = names.next();
    if range.as_ref() == Some(&hash) {
        return Err(Error::validation(
            "Both the Hash Key and the Range Key element in the KeySchema have the same name",
        ));
    }
    let keys = KeySchema { hash, range };
    if let Some(unknown) = keys.names().find(|name| !attributes.contains_key(*name)) {
        return Err(Error::invalid(&format!(
            "Some index key attributes are not defined in AttributeDefinitions. Keys: [{unknown}], \
             AttributeDefinitions: [{}]",
            attributes.keys().cloned().collect::<Vec<_>>().join(", ")
        )));
    }
    Ok(keys)
}

/// Refuses definitions of attributes that are the key of nothing.
pub(super) fn check_all_used(
    attributes: &BTreeMap<String, KeyKind>,
    keys: &KeySchema,
    indexes: &[Index],
) -> Result<(), Error> {
    let mut used: BTreeSet<&String> = keys.names().collect();
    used.extend(indexes.iter().flat_map(|index| index.keys.names()));
    if attributes.keys().all(|name| used.contains(name)) {
        return Ok(());
    }
    Err(Error::invalid(&format!(
        "Some AttributeDefinitions are not used. AttributeDefinitions: [{}], keys used: [{}]",
        attributes.keys().cloned().collect::<Vec<_>>().join(", "),
        used.into_iter().cloned().collect::<Vec<_>>().join(", ")
    )))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ProvisionedThroughput {
    read_capacity_units: Option<Integer>,
    write_capacity_units: Option<Integer>,
}

/// `ProvisionedThroughput`, both numbers in it.
pub(super) fn throughput(
    given: Option<&Structure<ProvisionedThroughput>>,
) -> Result<Option<Throughput>, Error> {
    let Some(Structure(given)) = given else { return Ok(None) };
    let number = |value: Option<Integer>, at: &str| {
        let value = Some(checks::required(value, at)?);
        Ok::<_, Error>(checks::number(value, at, 1, i64::MAX)?.unwrap_or(1))
    };
    Ok(Some(Throughput {
        read: number(given.read_capacity_units, "provisionedThroughput.readCapacityUnits")?,
        write: number(given.write_capacity_units, "provisionedThroughput.writeCapacityUnits")?,
    }))
}

/// Checks the throughput of a table or an index against how the table is billed.
pub(super) fn check_billing(
    on_demand: bool,
    throughput: Option<Throughput>,
    index: Option<&str>,
) -> Result<(), Error> {
    let place = index.map_or(String::new(), |name| format!(" for index: {name}"));
    match (on_demand, throughput) {
        (true, Some(_)) => Err(Error::invalid(&format!(
            "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified{place} when BillingMode \
             is PAY_PER_REQUEST"
        ))),
        (false, None) => Err(Error::invalid(&format!(
            "ReadCapacityUnits and WriteCapacityUnits must both be specified{place} when BillingMode \
             is PROVISIONED"
        ))),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Projection<'a> {
    #[serde(borrow)]
    projection_type: Option<Text<'a>>,
    #[serde(borrow)]
    non_key_attributes: Option<List<Text<'a>>>,
}

/// `GlobalSecondaryIndex` of the API.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NewIndex<'a> {
    #[serde(borrow)]
    index_name: Option<Text<'a>>,
    #[serde(borrow)]
    key_schema: Option<Keys<'a>>,
    #[serde(borrow)]
    projection: Option<Structure<Projection<'a>>>,
    provisioned_throughput: Option<Structure<ProvisionedThroughput>>,
    on_demand_throughput: Option<IgnoredAny>,
    warm_throughput: Option<IgnoredAny>,
}

/// A new index.
pub(super) fn index(
    new: &NewIndex<'_>,
    attributes: &BTreeMap<String, KeyKind>,
    on_demand: bool,
    state: State,
) -> Result<Index, Error> {
    checks::refuse(&[
        ("OnDemandThroughput", &new.on_demand_throughput),
        ("WarmThroughput", &new.warm_throughput),
    ])?;
    let name =
        checks::index_name(new.index_name.as_ref(), "globalSecondaryIndexes.member.indexName")?;
    let keys = keys(new.key_schema.as_ref(), attributes)?;
    let at = "globalSecondaryIndexes.member.projection";
    let projection = checks::required(new.projection.as_ref(), at)?;
    let projected = projected(&projection.0)?;
    let throughput = throughput(new.provisioned_throughput.as_ref())?;
    check_billing(on_demand, throughput, Some(&name))?;
    Ok(Index { name, keys, projected, throughput, state })
}

fn projected(projection: &Projection<'_>) -> Result<Projected, Error> {
    let kind = projection
        .projection_type
        .as_ref()
        .ok_or_else(|| Error::invalid("Unknown ProjectionType: null"))?;
    let words = ["ALL", "INCLUDE", "KEYS_ONLY"];
    let kind = checks::one_of(Some(kind), "projection.projectionType", &words)?;
    let names = projection.non_key_attributes.as_ref().map(|list| &list.0);
    match (kind, names) {
        ("INCLUDE", Some(names)) if !names.is_empty() => {
            if names.len() > PROJECTED_NAMES_MAX {
                return Err(Error::invalid("Too many NonKeyAttributes"));
            }
            Ok(Projected::Include(names.iter().map(|name| name.0.clone().into_owned()).collect()))
        }
        ("INCLUDE", _) => {
            Err(Error::invalid("ProjectionType is INCLUDE, but NonKeyAttributes is not specified"))
        }
        (kind, Some(_)) => Err(Error::invalid(&format!(
            "ProjectionType is {kind}, but NonKeyAttributes is specified"
        ))),
        ("ALL", None) => Ok(Projected::All),
        _ => Ok(Projected::KeysOnly),
    }
}
