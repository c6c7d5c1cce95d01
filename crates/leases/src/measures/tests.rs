//! Reports in, an exposition out.

use hydrant_core::names::Scope;

use super::*;

fn scope() -> Scope {
    Scope { account: "000000000000".parse().unwrap(), region: "us-east-1".parse().unwrap() }
}

async fn put(measures: &Measures, body: &str) -> Result<(), String> {
    let call = Call::for_tests(scope(), "PutMetricData", body.to_owned());
    measures.call(call).await.map(|_| ()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn what_kcl_reports_is_shown() {
    let measures = Measures::new();
    for behind in ["5000", "\"250\""] {
        let datum = format!(
            r#"{{"MetricName":"MillisBehindLatest","Unit":"Milliseconds","Timestamp":1.5,
                "Dimensions":[{{"Name":"ShardId","Value":"shardId-000000000001"}},
                              {{"Name":"Operation","Value":"ProcessTask"}}],
                "StatisticValues":{{"SampleCount":2,"Sum":{behind},"Minimum":0,"Maximum":{behind}}}}}"#
        );
        put(&measures, &format!(r#"{{"Namespace":"app","MetricData":[{datum}]}}"#)).await.unwrap();
    }
    let text = measures.exposition();
    for line in [
        "hydrant_kcl_millis_behind_latest{account=\"000000000000\",region=\"us-east-1\",\
         application=\"app\",shard=\"shardId-000000000001\"} 250\n",
        "hydrant_reported_sum_total{account=\"000000000000\",region=\"us-east-1\",\
         namespace=\"app\",metric=\"MillisBehindLatest\",operation=\"ProcessTask\",\
         shard_id=\"shardId-000000000001\"} 5250\n",
        "} 4\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_of_it_counts() {
    let measures = Measures::new();
    for (body, wanted) in [
        (r#"{"MetricData":[]}"#, "MissingRequiredParameterException: The parameter Namespace"),
        (r#"{"Namespace":"a"}"#, "The parameter MetricData is required."),
        (r#"{"Namespace":"AWS/x","MetricData":[]}"#, "The value AWS/ for parameter Namespace"),
        (r#"{"Namespace":"a","MetricData":[{"Value":1}]}"#, "MetricData.member.1.MetricName"),
        (
            r#"{"Namespace":"a","MetricData":[{"MetricName":"m","Value":1},{"MetricName":"m"}]}"#,
            "MetricData.member.2.Value",
        ),
        (
            r#"{"Namespace":"a","MetricData":[{"MetricName":"m","Value":1,"Values":[1]}]}"#,
            "InvalidParameterCombinationException",
        ),
        (r#"{"Namespace":"a","MetricData":[{"MetricName":"m","Value":1e200}]}"#, "is invalid."),
        (
            r#"{"Namespace":"a","MetricData":[{"MetricName":"m","Value":1,"Unit":"Apples"}]}"#,
            "MetricData.member.1.Unit",
        ),
        (
            r#"{"Namespace":"a","MetricData":[{"MetricName":"m","Values":[1,2],"Counts":[1]}]}"#,
            "must be of the same size",
        ),
    ] {
        let error = put(&measures, body).await.unwrap_err();
        assert!(error.contains(wanted), "{body}: {error}");
    }
    assert_eq!(measures.exposition(), "");
}

#[tokio::test]
async fn the_least_recent_series_are_forgotten() {
    let measures = Measures::new();
    for n in 0..25 {
        let data = (0..500).map(|m| format!(r#"{{"MetricName":"m{n}-{m}","Value":1}}"#));
        let data = data.collect::<Vec<_>>().join(",");
        put(&measures, &format!(r#"{{"Namespace":"a","MetricData":[{data}]}}"#)).await.unwrap();
    }
    let text = measures.exposition();
    let count = text.lines().filter(|l| l.starts_with("hydrant_reported_maximum")).count();
    assert!((8_500..=10_000).contains(&count), "{count}");
    assert!(text.contains("m24-499") && !text.contains("\"m0-0\""));
}
