import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.common.util.concurrent.ListenableFuture;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.Attempt;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordFailedException;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * A producer on the KPL and its native part, which speaks only TLS. For each line on standard input,
 * `FIRST COUNT`, it puts that many user records, the numbers from FIRST on, waits for all of them,
 * and tells as a line of JSON what became of them. Arguments: host and port of all services, the
 * stream, the file of the certificate authority, a folder for the native part.
 */
public final class Producer {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        String host = arguments[0];
        long port = Long.parseLong(arguments[1]);
        String stream = arguments[2];
        var configuration = new KinesisProducerConfiguration()
                .setRegion("us-east-1")
                .setCredentialsProvider(StaticCredentialsProvider.create(
                        AwsBasicCredentials.create("test", "test")))
                .setKinesisEndpoint(host).setKinesisPort(port)
                .setCloudwatchEndpoint(host).setCloudwatchPort(port)
                .setStsEndpoint(host).setStsPort(port)
                .setCaCertFile(arguments[3])
                .setTempDirectory(arguments[4])
                .setMetricsLevel("detailed").setMetricsUploadDelay(1_000)
                .setRecordMaxBufferedTime(50)
                .setRecordTtl(30_000)
                .setRequestTimeout(10_000);
        var producer = new KinesisProducer(configuration);
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            put(producer, stream, Integer.parseInt(words[0]), Integer.parseInt(words[1]));
        }
        producer.destroy();
        System.exit(0);
    }

    private static void put(KinesisProducer producer, String stream, int first, int count)
            throws Exception {
        List<ListenableFuture<UserRecordResult>> results = new ArrayList<>();
        for (int n = first; n < first + count; n++) {
            ByteBuffer data = ByteBuffer.wrap(String.valueOf(n).getBytes(StandardCharsets.UTF_8));
            results.add(producer.addUserRecord(stream, "key-" + n % 50, data));
        }
        producer.flush();
        int acknowledged = 0;
        Map<String, Integer> shards = new TreeMap<>();
        Map<String, Integer> errors = new TreeMap<>();
        for (var future : results) {
            UserRecordResult result;
            try {
                result = future.get(60, TimeUnit.SECONDS);
                acknowledged++;
                shards.merge(result.getShardId(), 1, Integer::sum);
            } catch (ExecutionException error) {
                if (!(error.getCause() instanceof UserRecordFailedException failed)) {
                    throw error;
                }
                result = failed.getResult();
            }
            for (Attempt attempt : result.getAttempts()) {
                if (!attempt.isSuccessful()) {
                    errors.merge(attempt.getErrorCode() + ": " + attempt.getErrorMessage(), 1,
                            Integer::sum);
                }
            }
        }
        Map<String, Object> told = new LinkedHashMap<>();
        told.put("acknowledged", acknowledged);
        told.put("shards", shards);
        told.put("errors", errors);
        System.out.println(JSON.writeValueAsString(told));
    }
}
