// OkHttp as a peer; see benchmarks/_python_peer.py for the orders. No JSON library is needed to read flat orders.
//
// Pinned with CertificatePinner, which is asked on resumed connections too. The socket factory sets TCP_NODELAY in one
// variant: OkHttp 3 leaves it off, and waits for a delayed acknowledgement in every cold TLS 1.3 request.
import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.net.InetAddress;
import java.net.Socket;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.SocketFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;
import okhttp3.CertificatePinner;
import okhttp3.ConnectionPool;
import okhttp3.HttpUrl;
import okhttp3.OkHttpClient;
import okhttp3.Protocol;
import okhttp3.Request;
import okhttp3.Response;

public final class OkHttpPeer {
  private static final Pattern FIELD =
      Pattern.compile("\"(\\w+)\":\\s*(\"[^\"]*\"|\\[[^\\]]*\\]|true|false|[0-9.]+)");

  static Map<String, String> read(String line) {
    Map<String, String> found = new HashMap<>();
    Matcher matcher = FIELD.matcher(line);
    while (matcher.find()) found.put(matcher.group(1), matcher.group(2).replaceAll("[\"\\[\\] ]", ""));
    return found;
  }

  static final class NoDelay extends SocketFactory {
    @Override public Socket createSocket() throws IOException {
      Socket socket = new Socket();
      socket.setTcpNoDelay(true);
      return socket;
    }
    @Override public Socket createSocket(String host, int port) { throw new UnsupportedOperationException(); }
    @Override public Socket createSocket(String host, int port, InetAddress a, int b) {
      throw new UnsupportedOperationException();
    }
    @Override public Socket createSocket(InetAddress host, int port) { throw new UnsupportedOperationException(); }
    @Override public Socket createSocket(InetAddress host, int port, InetAddress a, int b) {
      throw new UnsupportedOperationException();
    }
  }

  static OkHttpClient client(Map<String, String> config, boolean cold) throws Exception {
    KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
    store.load(null, null);
    try (FileInputStream pem = new FileInputStream(config.get("roots"))) {
      int number = 0;
      for (Certificate one : CertificateFactory.getInstance("X.509").generateCertificates(pem))
        store.setCertificateEntry("root" + number++, one);
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    OkHttpClient.Builder builder =
        new OkHttpClient.Builder()
            .sslSocketFactory(context.getSocketFactory(), (X509TrustManager) trust.getTrustManagers()[0])
            .protocols(List.of(Protocol.HTTP_1_1))
            .retryOnConnectionFailure(false)
            .connectionPool(new ConnectionPool(cold ? 0 : 100, 1, TimeUnit.HOURS));
    if (config.get("peer").contains("TCP_NODELAY")) builder.socketFactory(new NoDelay());
    if (config.get("pinned").equals("true")) {
      String host = HttpUrl.get(config.get("url")).host();
      builder.certificatePinner(
          new CertificatePinner.Builder().add(host, config.get("pins").split(",")).build());
    }
    return builder.build();
  }

  static String get(OkHttpClient client, String url) throws IOException {
    try (Response response = client.newCall(new Request.Builder().url(url).build()).execute()) {
      int length = response.body().bytes().length;
      if (response.code() != 200 || length != 100)
        throw new IOException("status " + response.code() + " and " + length + " bytes, not 200 and 100");
      return response.header("X-Resumed", "");
    }
  }

  static double cpu() {
    return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
            .getProcessCpuTime() / 1e3;
  }

  static String sample(OkHttpClient client, String url, int first, int requests) throws IOException {
    double cpu = 0, wall = 0;
    int resumed = 0;
    List<String> own = new ArrayList<>();
    for (int done = 0; done < first + requests; done++) {
      if (done == first) {
        cpu = cpu();
        wall = System.nanoTime() / 1e3;
      }
      double sent = System.nanoTime() / 1e3;
      String how = get(client, url);
      if (done >= first) {
        own.add(String.format(Locale.ROOT, "%.1f", System.nanoTime() / 1e3 - sent));
        if (how.equals("r")) resumed++;
      }
    }
    cpu = cpu() - cpu;
    wall = System.nanoTime() / 1e3 - wall;
    return String.format(Locale.ROOT, "{\"cpu\": %.2f, \"wall\": %.2f, \"resumed\": %.4f, \"own\": %s}",
        cpu / requests, wall / requests, (double) resumed / requests, own);
  }

  public static void main(String[] arguments) throws Exception {
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    Map<String, String> config = read(lines.readLine());
    Map<String, OkHttpClient> clients = new HashMap<>();
    System.out.println("{\"java\": \"" + System.getProperty("java.version") + "\"}");
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      Map<String, String> order = read(line);
      String kind = order.get("kind");
      if (kind.equals("probe")) {
        Map<String, String> changed = new HashMap<>(config);
        changed.putAll(order);
        try {
          get(client(changed, true), changed.get("url"));
          System.out.println("{\"accepted\": true, \"error\": \"\"}");
        } catch (Exception error) {
          String text = error.getClass().getSimpleName();
          System.out.println("{\"accepted\": false, \"error\": \"" + text + "\"}");
        }
        continue;
      }
      if (!clients.containsKey(kind)) clients.put(kind, client(config, kind.equals("cold")));
      int first = Integer.parseInt(order.getOrDefault("first", "2"));
      System.out.println(sample(clients.get(kind), config.get("url"), first, Integer.parseInt(order.get("requests"))));
    }
    System.exit(0);
  }
}
