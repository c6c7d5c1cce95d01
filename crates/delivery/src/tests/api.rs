//! What the API answers.

use super::*;

#[tokio::test(start_paused = true)]
async fn from_creating_to_gone() {
    let world = World::new().await;
    let delivery = world.start().await;
    let name = json!({ "DeliveryStreamName": "orders" });
    let mut create = name.clone();
    create["S3DestinationConfiguration"] =
        json!({ "RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake" });
    create["Tags"] = json!([{ "Key": "team", "Value": "data" }]);
    let created = delivery.api("CreateDeliveryStream", create.clone()).await.unwrap();
    let arn = "arn:aws:firehose:us-east-1:000000000000:deliverystream/orders";
    assert_eq!(created, json!({ "DeliveryStreamARN": arn }));
    let again = delivery.api("CreateDeliveryStream", create).await.unwrap_err();
    assert_eq!(again.code, "ResourceInUseException");
    assert_eq!(again.message, "Firehose orders under account 000000000000 already exists.");
    let status = async || {
        let reply = delivery.api("DescribeDeliveryStream", name.clone()).await?;
        Ok::<_, ApiError>(reply["DeliveryStreamDescription"]["DeliveryStreamStatus"].clone())
    };
    assert_eq!(status().await.unwrap(), "CREATING");
    assert_eq!(delivery.put("orders", "x").await.unwrap_err().code, "ResourceNotFoundException");
    let early = delivery.api("DeleteDeliveryStream", name.clone()).await.unwrap_err();
    assert_eq!(early.code, "ResourceInUseException");
    sleep(Duration::from_millis(400)).await;
    assert_eq!(status().await.unwrap(), "ACTIVE");
    let put = delivery.put("orders", "x").await.unwrap();
    assert_eq!(put["Encrypted"], false);
    assert!(put["RecordId"].as_str().is_some_and(|id| id.len() > 10));
    assert_eq!(delivery.api("DeleteDeliveryStream", name.clone()).await.unwrap(), json!({}));
    assert_eq!(status().await.unwrap(), "DELETING");
    assert_eq!(delivery.api("DeleteDeliveryStream", name.clone()).await.unwrap(), json!({}));
    sleep(Duration::from_secs(1)).await;
    let gone = status().await.unwrap_err();
    assert_eq!((gone.status, gone.code), (400, "ResourceNotFoundException"));
    assert_eq!(gone.message, "Firehose orders under account 000000000000 not found.");
    let left = hydrant_core::control::scan_all(world.control.as_ref(), "delivery/").await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn describe_shows_it_all() {
    let world = World::new().await;
    world.stream("tweets", 1).await;
    let delivery = world.start().await;
    let mut extra = from_stream("tweets");
    extra["ExtendedS3DestinationConfiguration"] = json!({
        "RoleARN": ROLE,
        "BucketARN": "arn:aws:s3:::lake",
        "Prefix": "raw/",
        "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
        "CompressionFormat": "GZIP",
        "FileExtension": ".json.gz",
        "CustomTimeZone": "Europe/Berlin",
        "EncryptionConfiguration": { "NoEncryptionConfig": "NoEncryption" },
        "ProcessingConfiguration": { "Enabled": false, "Processors": [] },
        "S3BackupMode": "Disabled",
    });
    delivery.create("lake", 5, 60, extra).await;
    let name = json!({ "DeliveryStreamName": "lake" });
    let reply = delivery.api("DescribeDeliveryStream", name).await.unwrap();
    let plain = json!({
        "RoleARN": ROLE,
        "BucketARN": "arn:aws:s3:::lake",
        "Prefix": "raw/",
        "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
        "BufferingHints": { "SizeInMBs": 5, "IntervalInSeconds": 300 },
        "CompressionFormat": "GZIP",
        "EncryptionConfiguration": { "NoEncryptionConfig": "NoEncryption" },
        "CloudWatchLoggingOptions": { "Enabled": false },
    });
    let mut extended = plain.clone();
    extended["S3BackupMode"] = json!("Disabled");
    extended["FileExtension"] = json!(".json.gz");
    extended["CustomTimeZone"] = json!("Europe/Berlin");
    extended["ProcessingConfiguration"] = json!({ "Enabled": false, "Processors": [] });
    assert_eq!(
        reply,
        json!({ "DeliveryStreamDescription": {
            "DeliveryStreamName": "lake",
            "DeliveryStreamARN": "arn:aws:firehose:us-east-1:000000000000:deliverystream/lake",
            "DeliveryStreamStatus": "ACTIVE",
            "DeliveryStreamType": "KinesisStreamAsSource",
            "VersionId": "1",
            "CreateTimestamp": 1_700_000_000.0,
            "Source": { "KinesisStreamSourceDescription": {
                "KinesisStreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/tweets",
                "RoleARN": ROLE,
                "DeliveryStartTimestamp": 1_700_000_000.0,
            }},
            "Destinations": [{
                "DestinationId": "destinationId-000000000001",
                "S3DestinationDescription": plain,
                "ExtendedS3DestinationDescription": extended,
            }],
            "HasMoreDestinations": false,
        }})
    );
}

#[tokio::test(start_paused = true)]
async fn what_hydrant_does_not_do_is_refused_by_name() {
    let world = World::new().await;
    let delivery = world.start().await;
    let s3 = json!({ "RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake" });
    let in_s3 = [
        ("CompressionFormat", json!("ZIP")),
        ("CompressionFormat", json!("Snappy")),
        ("EncryptionConfiguration", json!({ "KMSEncryptionConfig": { "AWSKMSKeyARN": "arn:x" } })),
        ("CloudWatchLoggingOptions", json!({ "Enabled": true, "LogGroupName": "g" })),
        ("ProcessingConfiguration", json!({ "Enabled": true, "Processors": [] })),
        ("ProcessingConfiguration", json!({ "Processors": [{ "Type": "Lambda" }] })),
        ("DataFormatConversionConfiguration", json!({ "SchemaConfiguration": {} })),
        ("DataFormatConversionConfiguration", json!({})),
        ("DynamicPartitioningConfiguration", json!({ "Enabled": true })),
        ("S3BackupMode", json!("Enabled")),
        ("S3BackupConfiguration", json!({ "RoleARN": ROLE })),
        ("BufferingHints", json!({ "SizeInMBs": 5 })),
        ("Prefix", json!("!{partitionKeyFromQuery:id}/")),
    ];
    let mut inputs = Vec::new();
    for (member, value) in in_s3 {
        let mut s3 = s3.clone();
        s3[member] = value;
        inputs.push((member, json!({ "ExtendedS3DestinationConfiguration": s3 })));
    }
    for (member, value) in [
        ("RedshiftDestinationConfiguration", json!({ "RoleARN": ROLE })),
        ("IcebergDestinationConfiguration", json!({})),
        ("SnowflakeDestinationConfiguration", json!({})),
        ("MSKSourceConfiguration", json!({})),
        ("DatabaseSourceConfiguration", json!({})),
        ("DirectPutSourceConfiguration", json!({ "ThroughputHintInMBs": 1 })),
        ("DeliveryStreamEncryptionConfigurationInput", json!({ "KeyType": "AWS_OWNED_CMK" })),
        ("DeliveryStreamType", json!("MSKAsSource")),
    ] {
        let mut input = json!({ "ExtendedS3DestinationConfiguration": s3 });
        input[member] = value;
        inputs.push((member, input));
    }
    for (member, mut input) in inputs {
        input["DeliveryStreamName"] = json!("orders");
        let error = delivery.api("CreateDeliveryStream", input).await.unwrap_err();
        assert_eq!(error.code, "InvalidArgumentException", "{member}: {error}");
        assert!(error.message.contains(member), "{member}: {error}");
    }
    for operation in ["StartDeliveryStreamEncryption", "StopDeliveryStreamEncryption"] {
        let error = delivery.api(operation, json!({})).await.unwrap_err();
        assert!(error.message.contains(operation), "{error}");
    }
    let unknown = delivery.api("Frobnicate", json!({})).await.unwrap_err();
    assert_eq!(unknown.code, "UnknownOperationException");
    let listed = delivery.api("ListDeliveryStreams", json!({})).await.unwrap();
    assert_eq!(listed["DeliveryStreamNames"], json!([]), "nothing was created");
}

#[tokio::test(start_paused = true)]
async fn broken_constraints_are_worded_as_aws_words_them() {
    let world = World::new().await;
    let delivery = world.start().await;
    let s3 = |member: &str, value: Value| {
        let mut s3 = json!({ "RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake" });
        s3[member] = value;
        json!({ "DeliveryStreamName": "a", "S3DestinationConfiguration": s3 })
    };
    let cases = [
        (
            "PutRecord",
            json!({}),
            "2 validation errors detected: Value null at 'deliveryStreamName' failed to satisfy \
          constraint: Member must not be null; Value null at 'record' failed to satisfy constraint: \
          Member must not be null",
        ),
        (
            "PutRecord",
            json!({ "DeliveryStreamName": "a b", "Record": { "Data": "" } }),
            "1 validation error detected: Value 'a b' at 'deliveryStreamName' failed to satisfy \
          constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+",
        ),
        (
            "PutRecord",
            json!({ "DeliveryStreamName": "a", "Record": {} }),
            "1 validation error detected: Value null at 'record.data' failed to satisfy constraint: \
          Member must not be null",
        ),
        (
            "PutRecordBatch",
            json!({ "DeliveryStreamName": "a", "Records": [] }),
            "1 validation error detected: Value at 'records' failed to satisfy constraint: Member must \
          have length greater than or equal to 1",
        ),
        (
            "CreateDeliveryStream",
            s3("BufferingHints", json!({ "SizeInMBs": 129, "IntervalInSeconds": 60 })),
            "1 validation error detected: Value '129' at \
          's3DestinationConfiguration.bufferingHints.sizeInMBs' failed to satisfy constraint: Member \
          must have value less than or equal to 128",
        ),
        (
            "CreateDeliveryStream",
            s3("CompressionFormat", json!("LZMA")),
            "1 validation error detected: Value 'LZMA' at \
          's3DestinationConfiguration.compressionFormat' failed to satisfy constraint: Member must \
          satisfy enum value set: [UNCOMPRESSED, GZIP, ZIP, Snappy, HADOOP_SNAPPY]",
        ),
        (
            "CreateDeliveryStream",
            s3("RoleARN", json!("me")),
            "1 validation error detected: Value 'me' at 's3DestinationConfiguration.roleARN' failed to \
          satisfy constraint: Member must satisfy regular expression pattern: \
          arn:.*:iam::\\d{12}:role/[a-zA-Z_0-9+=,.@\\-_/]+",
        ),
    ];
    for (operation, input, words) in cases {
        let error = delivery.api(operation, input).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), ("ValidationException", words));
    }
    for bad in [
        "{",
        "[]",
        r#"{"DeliveryStreamName":7}"#,
        r#"{"DeliveryStreamName":"a","Record":{"Data":"%%"}}"#,
    ] {
        let call = Call::for_tests(world.scope.clone(), "PutRecord", bad);
        let error = delivery.call(call).await.unwrap_err();
        assert_eq!(error.code, "SerializationException", "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn limits_of_a_put() {
    let world = World::new().await;
    let delivery = world.start().await;
    delivery.create("orders", 128, 900, json!({})).await;
    let largest = "x".repeat(1_000 << 10);
    delivery.put("orders", &largest).await.unwrap();
    let error = delivery.put("orders", &format!("{largest}x")).await.unwrap_err();
    assert_eq!(
        error.message,
        "1 validation error detected: Value at 'record.data' failed to satisfy constraint: Member \
         must have length less than or equal to 1024000"
    );
    delivery.put("orders", "").await.unwrap();
    let batch = async |count: usize, data: &str| {
        let records = vec![json!({ "Data": STANDARD.encode(data) }); count];
        let input = json!({ "DeliveryStreamName": "orders", "Records": records });
        delivery.api("PutRecordBatch", input).await
    };
    let reply = batch(500, "x").await.unwrap();
    assert_eq!((&reply["FailedPutCount"], &reply["Encrypted"]), (&json!(0), &json!(false)));
    let mut ids: Vec<_> = reply["RequestResponses"].as_array().unwrap().clone();
    ids.dedup();
    assert_eq!(ids.len(), 500, "each record has an id of its own");
    assert_eq!(batch(501, "x").await.unwrap_err().code, "ValidationException");
    let error = batch(5, &largest).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        ("InvalidArgumentException", "Records size exceeds 4 MB limit")
    );
    assert_eq!(delivery.put("nobody", "x").await.unwrap_err().code, "ResourceNotFoundException");
}

#[tokio::test(start_paused = true)]
async fn lists_and_tags() {
    let world = World::new().await;
    world.stream("tweets", 1).await;
    let delivery = world.start().await;
    for n in 0..12 {
        delivery.create(&format!("direct-{n:02}"), 5, 60, json!({})).await;
    }
    delivery.create("tapped", 5, 60, from_stream("tweets")).await;
    let list = async |input: Value| delivery.api("ListDeliveryStreams", input).await.unwrap();
    let first = list(json!({})).await;
    assert_eq!(first["DeliveryStreamNames"].as_array().map(Vec::len), Some(10));
    assert_eq!(first["HasMoreDeliveryStreams"], true);
    let rest = list(json!({ "ExclusiveStartDeliveryStreamName": "direct-09" })).await;
    assert_eq!(
        rest,
        json!({
            "DeliveryStreamNames": ["direct-10", "direct-11", "tapped"],
            "HasMoreDeliveryStreams": false,
        })
    );
    let tapped = list(json!({ "DeliveryStreamType": "KinesisStreamAsSource" })).await;
    assert_eq!(tapped["DeliveryStreamNames"], json!(["tapped"]));

    let tags = json!([{ "Key": "a", "Value": "1" }, { "Key": "b" }]);
    let input = json!({ "DeliveryStreamName": "tapped", "Tags": tags });
    delivery.api("TagDeliveryStream", input).await.unwrap();
    let input = json!({ "DeliveryStreamName": "tapped", "Limit": 1 });
    let listed = delivery.api("ListTagsForDeliveryStream", input).await.unwrap();
    let want = json!({ "Tags": [{ "Key": "a", "Value": "1" }], "HasMoreTags": true });
    assert_eq!(listed, want);
    let input = json!({ "DeliveryStreamName": "tapped", "TagKeys": ["a"] });
    delivery.api("UntagDeliveryStream", input).await.unwrap();
    let input = json!({ "DeliveryStreamName": "tapped" });
    let listed = delivery.api("ListTagsForDeliveryStream", input).await.unwrap();
    assert_eq!(listed["Tags"], json!([{ "Key": "b", "Value": "" }]));
    let input = json!({ "DeliveryStreamName": "tapped", "Tags": [{ "Key": "aws:x" }] });
    let error = delivery.api("TagDeliveryStream", input).await.unwrap_err();
    assert_eq!(error.code, "ValidationException");
}

#[tokio::test(start_paused = true)]
async fn a_source_must_be_there() {
    let world = World::new().await;
    let delivery = world.start().await;
    let mut input = from_stream("nowhere");
    input["DeliveryStreamName"] = json!("lake");
    input["S3DestinationConfiguration"] =
        json!({ "RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake" });
    let error = delivery.api("CreateDeliveryStream", input.clone()).await.unwrap_err();
    assert_eq!(error.message, "Stream nowhere under account 000000000000 not found.");
    input["KinesisStreamSourceConfiguration"]["KinesisStreamARN"] =
        json!("arn:aws:kinesis:eu-west-1:000000000000:stream/nowhere");
    let error = delivery.api("CreateDeliveryStream", input).await.unwrap_err();
    assert!(error.message.contains("another account or region"), "{error}");
}
