// Swagger UI, in a file of its own.

// @ts-expect-error: it comes without types.
import SwaggerUIBundle from 'swagger-ui-dist/swagger-ui-es-bundle.js';
export default SwaggerUIBundle as (options: Record<string, unknown>) => never;
