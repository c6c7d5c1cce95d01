import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.awscore.client.builder.AwsClientBuilder;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.common.StreamIdentifier;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A worker of a KCL application: it prints each record that it is given, and each turn of a shard's
 * life, as a line of JSON. Leases move soon after a worker is gone. Arguments: the endpoint of all
 * three services, the application, the stream, the worker's name, POLLING or FANOUT.
 */
public final class Consumer implements ShardRecordProcessor {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT = System.out;
    private static String worker;
    private String shard;

    public static void main(String[] arguments) {
        URI endpoint = URI.create(arguments[0]);
        String application = arguments[1];
        String stream = arguments[2];
        worker = arguments[3];
        boolean fanOut = arguments[4].equals("FANOUT");

        KinesisAsyncClient kinesis = KinesisClientUtil.createKinesisAsyncClient(
                at(KinesisAsyncClient.builder(), endpoint));
        var position = InitialPositionInStreamExtended
                .newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        var tracker =
                new SingleStreamTracker(StreamIdentifier.singleStreamInstance(stream), position);
        var configs = new ConfigsBuilder(
                tracker, application, kinesis, at(DynamoDbAsyncClient.builder(), endpoint).build(),
                at(CloudWatchAsyncClient.builder(), endpoint).build(), worker, Consumer::new);

        var leases = configs.leaseManagementConfig()
                .failoverTimeMillis(3_000)
                .shardSyncIntervalMillis(2_000)
                .leasesRecoveryAuditorExecutionFrequencyMillis(5_000)
                .listShardsCacheAllowedAgeInSeconds(1)
                .dynamoDbLockBasedLeaderLeaseDurationInMillis(3_000)
                .dynamoDbLockBasedLeaderHeartbeatPeriodInMillis(500);
        leases.workerUtilizationAwareAssignmentConfig()
                .inMemoryWorkerMetricsCaptureFrequencyMillis(500)
                .workerMetricsReporterFreqInMillis(1_000);
        var coordinator = configs.coordinatorConfig()
                .parentShardPollIntervalMillis(500)
                .shardConsumerDispatchPollIntervalMillis(200)
                .schedulerInitializationBackoffTimeMillis(500);
        var metrics = configs.metricsConfig()
                .metricsLevel(MetricsLevel.DETAILED)
                .metricsBufferTimeMillis(1_000);
        var retrieval = configs.retrievalConfig().retrievalSpecificConfig(fanOut
                ? new FanOutConfig(kinesis).streamName(stream).applicationName(application)
                : new PollingConfig(stream, kinesis).idleTimeBetweenReadsInMillis(200));
        var scheduler = new Scheduler(
                configs.checkpointConfig(), coordinator, leases, configs.lifecycleConfig(), metrics,
                configs.processorConfig(), retrieval);
        // SIGTERM ends it as an operator would: leases are handed back.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                scheduler.startGracefulShutdown().get();
            } catch (Exception error) {
                say("shutdown failed", Map.of("error", String.valueOf(error)));
            }
        }));
        scheduler.run();
    }

    private static <B extends AwsClientBuilder<B, ?>> B at(B builder, URI endpoint) {
        return builder.endpointOverride(endpoint).region(Region.US_EAST_1)
                .credentialsProvider(StaticCredentialsProvider.create(
                        AwsBasicCredentials.create("test", "test")))
                .overrideConfiguration(c -> c.apiCallAttemptTimeout(Duration.ofSeconds(20)));
    }

    private static void say(String what, Map<String, Object> more) {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("what", what);
        line.put("worker", worker);
        line.put("at", Duration.between(Instant.EPOCH, Instant.now()).toNanos());
        line.putAll(more);
        try {
            byte[] text = (JSON.writeValueAsString(line) + "\n").getBytes(StandardCharsets.UTF_8);
            synchronized (OUT) {
                OUT.write(text, 0, text.length);
                OUT.flush();
            }
        } catch (java.io.IOException error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public void initialize(InitializationInput input) {
        shard = input.shardId();
        say("begin", Map.of("shard", shard));
    }

    @Override
    public void processRecords(ProcessRecordsInput input) {
        input.records().forEach(record -> {
            byte[] data = new byte[record.data().remaining()];
            record.data().get(data);
            say("record", Map.of(
                    "shard", shard,
                    "sequence", record.sequenceNumber(),
                    "sub", record.subSequenceNumber(),
                    "key", record.partitionKey(),
                    "data", new String(data, StandardCharsets.UTF_8)));
        });
        if (!input.records().isEmpty()) {
            checkpoint(() -> input.checkpointer().checkpoint());
        }
    }

    @Override
    public void leaseLost(LeaseLostInput input) {
        say("lost", Map.of("shard", shard));
    }

    @Override
    public void shardEnded(ShardEndedInput input) {
        say("end", Map.of("shard", shard));
        checkpoint(() -> input.checkpointer().checkpoint());
    }

    @Override
    public void shutdownRequested(ShutdownRequestedInput input) {
        checkpoint(() -> input.checkpointer().checkpoint());
    }

    private interface Checkpoint {
        void make() throws InvalidStateException, ShutdownException;
    }

    /** A worker that has lost the lease meanwhile need not keep its place: the next one reads again. */
    private void checkpoint(Checkpoint checkpoint) {
        try {
            checkpoint.make();
        } catch (ShutdownException lost) {
            say("checkpoint refused", Map.of("shard", shard));
        } catch (InvalidStateException error) {
            throw new IllegalStateException(error);
        }
    }
}
