import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.client.config.ClientOverrideConfiguration;
import software.amazon.awssdk.core.interceptor.Context;
import software.amazon.awssdk.core.interceptor.ExecutionAttributes;
import software.amazon.awssdk.core.interceptor.ExecutionInterceptor;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.retries.DefaultRetryStrategy;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisClient;
import software.amazon.awssdk.services.kinesis.model.ConsumerStatus;
import software.amazon.awssdk.services.kinesis.model.GetRecordsResponse;
import software.amazon.awssdk.services.kinesis.model.GetShardIteratorRequest;
import software.amazon.awssdk.services.kinesis.model.KinesisException;
import software.amazon.awssdk.services.kinesis.model.PutRecordsRequestEntry;
import software.amazon.awssdk.services.kinesis.model.PutRecordsResponse;
import software.amazon.awssdk.services.kinesis.model.Record;
import software.amazon.awssdk.services.kinesis.model.ShardIteratorType;
import software.amazon.awssdk.services.kinesis.model.StreamDescription;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardEvent;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardResponseHandler;

/**
 * An everyday use of the SDK's two clients as they come: the synchronous one speaks HTTP/1.1, the
 * asynchronous one HTTP/2 without a handshake, both CBOR. Tells as JSON what it saw. Arguments: the
 * endpoint, and a name to use for streams.
 */
public final class Everyday {
    private static final Region REGION = Region.US_EAST_1;
    private static final StaticCredentialsProvider KEY =
            StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
    private static final int RECORDS = 10;

    private final Map<String, Object> told = new LinkedHashMap<>();
    private final Set<String> spoken = new ConcurrentSkipListSet<>();

    public static void main(String[] arguments) throws Exception {
        URI endpoint = URI.create(arguments[0]);
        Map<String, Object> all = new LinkedHashMap<>();
        Everyday one = new Everyday();
        try (KinesisClient client = KinesisClient.builder().endpointOverride(endpoint)
                .region(REGION).credentialsProvider(KEY).overrideConfiguration(one.once()).build()) {
            one.streams(client, arguments[1] + "-sync");
        }
        all.put("sync", one.told);
        Everyday two = new Everyday();
        try (KinesisAsyncClient client = KinesisAsyncClient.builder().endpointOverride(endpoint)
                .region(REGION).credentialsProvider(KEY).overrideConfiguration(two.once()).build()) {
            two.subscription(client, arguments[1] + "-async");
        }
        all.put("async", two.told);
        System.out.println(new ObjectMapper().writeValueAsString(all));
        System.exit(0);
    }

    private Everyday() {
        told.put("spoken", spoken);
    }

    /** Calls are tried once, so that every error is seen; what they are made of is noted. */
    private ClientOverrideConfiguration once() {
        return ClientOverrideConfiguration.builder()
                .retryStrategy(DefaultRetryStrategy.doNotRetry())
                .addExecutionInterceptor(new ExecutionInterceptor() {
                    @Override
                    public void beforeTransmission(
                            Context.BeforeTransmission context, ExecutionAttributes more) {
                        context.httpRequest().firstMatchingHeader("Content-Type")
                                .ifPresent(spoken::add);
                    }

                    @Override
                    public void afterTransmission(
                            Context.AfterTransmission context, ExecutionAttributes more) {
                        context.httpResponse().firstMatchingHeader("Content-Type")
                                .ifPresent(type -> spoken.add("reply: " + type));
                    }
                }).build();
    }

    private void streams(KinesisClient client, String name) {
        client.createStream(r -> r.streamName(name).shardCount(2));
        client.waiter().waitUntilStreamExists(r -> r.streamName(name));
        StreamDescription stream =
                client.describeStream(r -> r.streamName(name)).streamDescription();
        told.put("createdSecondsAgo", secondsAgo(stream.streamCreationTimestamp()));
        told.put("shards", stream.shards().size());

        PutRecordsResponse put = client.putRecords(r -> r.streamName(name).records(entries()));
        told.put("failed", put.failedRecordCount());
        String shard = put.records().get(0).shardId();
        String third = put.records().get(2).sequenceNumber();
        // Every byte there is: a text would not survive.
        byte[] bytes = new byte[256];
        for (int n = 0; n < bytes.length; n++) {
            bytes[n] = (byte) n;
        }
        String sequence = client.putRecord(r -> r.streamName(name).partitionKey("k")
                .data(SdkBytes.fromByteArray(bytes))).sequenceNumber();

        GetShardIteratorRequest from = GetShardIteratorRequest.builder().streamName(name)
                .shardId(shard).shardIteratorType(ShardIteratorType.TRIM_HORIZON).build();
        List<Record> all = read(client, from);
        Record last = all.get(RECORDS);
        told.put("records", texts(all.subList(0, RECORDS)));
        told.put("bytesCameBack", Arrays.equals(bytes, last.data().asByteArray()));
        told.put("sequenceCameBack", sequence.equals(last.sequenceNumber()));
        Instant arrival = last.approximateArrivalTimestamp();
        told.put("arrivedSecondsAgo", secondsAgo(arrival));
        told.put("afterTheThird", read(client, from.toBuilder().startingSequenceNumber(third)
                .shardIteratorType(ShardIteratorType.AFTER_SEQUENCE_NUMBER).build()).size());
        // Moments travel with their milliseconds.
        GetShardIteratorRequest at =
                from.toBuilder().shardIteratorType(ShardIteratorType.AT_TIMESTAMP).build();
        told.put("fromAnHourAgo", read(client,
                at.toBuilder().timestamp(arrival.minusSeconds(3600)).build()).size());
        told.put("fromTheLastArrival", read(client,
                at.toBuilder().timestamp(arrival).build()).size() >= 1);
        told.put("afterTheLastArrival", read(client,
                at.toBuilder().timestamp(arrival.plusMillis(1)).build()).size());

        client.addTagsToStream(r -> r.streamName(name).tags(Map.of("owner", "ü")));
        told.put("tags", client.listTagsForStream(r -> r.streamName(name)).tags().stream()
                .map(tag -> tag.key() + "=" + tag.value()).toList());
        told.put("listed", client.listStreamsPaginator(r -> r.limit(1)).streamNames().stream()
                .anyMatch(name::equals));
        told.put("errors", List.of(
                error(() -> client.describeStreamSummary(r -> r.streamName("nowhere"))),
                error(() -> client.createStream(r -> r.streamName(name).shardCount(1))),
                error(() -> client.getRecords(r -> r.shardIterator("not an iterator"))),
                error(() -> client.getRecords(r -> r.shardIterator("")))));
        client.deleteStream(r -> r.streamName(name));
        client.waiter().waitUntilStreamNotExists(r -> r.streamName(name));
    }

    private void subscription(KinesisAsyncClient client, String name) throws Exception {
        client.createStream(r -> r.streamName(name).shardCount(1)).join();
        client.waiter().waitUntilStreamExists(r -> r.streamName(name)).join();
        StreamDescription stream =
                client.describeStream(r -> r.streamName(name)).join().streamDescription();
        String shard = stream.shards().get(0).shardId();
        told.put("error", error(() -> {
            try {
                client.describeStreamSummary(r -> r.streamName("nowhere")).join();
            } catch (CompletionException failed) {
                throw (RuntimeException) failed.getCause();
            }
        }));

        String consumer = client.registerStreamConsumer(
                r -> r.streamARN(stream.streamARN()).consumerName("everyday"))
                .join().consumer().consumerARN();
        for (int n = 0; n < 100; n++) {
            ConsumerStatus status = client.describeStreamConsumer(r -> r.consumerARN(consumer))
                    .join().consumerDescription().consumerStatus();
            if (status == ConsumerStatus.ACTIVE) {
                break;
            }
            Thread.sleep(100);
        }

        List<String> seen = new CopyOnWriteArrayList<>();
        List<String> places = new CopyOnWriteArrayList<>();
        List<String> children = new CopyOnWriteArrayList<>();
        CompletableFuture<Void> half = new CompletableFuture<>();
        SubscribeToShardResponseHandler handler = SubscribeToShardResponseHandler.builder()
                .subscriber(event -> {
                    if (event instanceof SubscribeToShardEvent some) {
                        some.records().forEach(record -> seen.add(record.data().asUtf8String()));
                        if (some.continuationSequenceNumber() != null) {
                            places.add(some.continuationSequenceNumber());
                        }
                        some.childShards().forEach(child -> children.add(child.shardId()));
                        if (seen.size() >= RECORDS) {
                            half.complete(null);
                        }
                    }
                }).build();
        client.putRecords(r -> r.streamName(name).records(entries())).join();
        CompletableFuture<Void> life = client.subscribeToShard(
                r -> r.consumerARN(consumer).shardId(shard)
                        .startingPosition(p -> p.type(ShardIteratorType.TRIM_HORIZON)), handler);
        half.get(20, TimeUnit.SECONDS);
        // What comes while the subscription lives is pushed.
        client.putRecord(r -> r.streamName(name).partitionKey("k")
                .data(SdkBytes.fromUtf8String("pushed"))).join();
        for (int n = 0; n < 100 && seen.size() < RECORDS + 1; n++) {
            Thread.sleep(100);
        }
        // The end of the shard ends the subscription, and names the children.
        client.splitShard(r -> r.streamName(name).shardToSplit(shard)
                .newStartingHashKey("170141183460469231731687303715884105728")).join();
        life.get(20, TimeUnit.SECONDS);
        told.put("records", seen);
        told.put("places", !places.isEmpty());
        told.put("children", children);
    }

    private static List<PutRecordsRequestEntry> entries() {
        List<PutRecordsRequestEntry> entries = new ArrayList<>();
        for (int n = 0; n < RECORDS; n++) {
            entries.add(PutRecordsRequestEntry.builder().partitionKey("k")
                    .data(SdkBytes.fromUtf8String("record " + n)).build());
        }
        return entries;
    }

    /** Everything from there to the end of the shard as it is now. */
    private static List<Record> read(KinesisClient client, GetShardIteratorRequest from) {
        List<Record> records = new ArrayList<>();
        String iterator = client.getShardIterator(from).shardIterator();
        for (int n = 0; n < 100 && iterator != null; n++) {
            String next = iterator;
            GetRecordsResponse page = client.getRecords(r -> r.shardIterator(next).limit(4));
            records.addAll(page.records());
            iterator = page.nextShardIterator();
            if (page.records().isEmpty() && page.millisBehindLatest() == 0) {
                break;
            }
        }
        return records;
    }

    private static List<String> texts(List<Record> records) {
        return records.stream().map(record -> record.data().asUtf8String()).toList();
    }

    private static long secondsAgo(Instant moment) {
        return Duration.between(moment, Instant.now()).abs().toSeconds();
    }

    private static Map<String, Object> error(Runnable call) {
        try {
            call.run();
            return Map.of();
        } catch (KinesisException error) {
            return Map.of(
                    "class", error.getClass().getSimpleName(),
                    "code", error.awsErrorDetails().errorCode(),
                    "message", error.awsErrorDetails().errorMessage(),
                    "status", error.statusCode(),
                    "request", error.requestId() != null);
        }
    }
}
