// Shows the description of the API that stands beside this page. A token that is typed in stays in the page's memory.
addEventListener("DOMContentLoaded", () => {
  SwaggerUIBundle({
    url: new URL("openapi.json", document.baseURI).href,
    dom_id: "#api",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
    persistAuthorization: false,
    validatorUrl: null,
  });
});
