/** The client under test: the sources, or with CLIENT=dist the bundle that is shipped. */

export const { RealtimeClient, RealtimeError, ConfigurationError, ConnectionError, AuthenticationError, PermissionDenied } = await import(
  process.env.CLIENT === "dist" ? "../../dist/client.js" : "../../src/index.js"
);
